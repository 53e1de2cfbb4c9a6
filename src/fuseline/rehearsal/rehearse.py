"""Ask a bundle, alone in a clean environment, what it is asked here, and compare.

Shape letters: U units of a row, C classes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.records import Rehearsal
from fuseline.rehearsal.environment import build_environment, read_pins
from fuseline.rehearsal.golden import Golden, constants_of, pick_golden
from fuseline.runtime.predictor import Answer, Floats, Predictor, Row
from fuseline.tasks.base import Task

TIMEOUT_S = 1800
"""A bundle that has not answered by then does not answer."""
DRIVER = Path(__file__).with_name("driver.py")


def rehearse(folder: Path, rows: Iterable[Row], evaluated: Sequence[Floats], most: int) -> Rehearsal:
    """Rehearse a bundle with about `most` golden rows.

    Args:
        rows: they are gone through twice.
        evaluated: for each row, what the evaluation says of its units [U, C], in any shape.
    """
    began = time.perf_counter()
    predictor = Predictor(folder, ["CPUExecutionProvider"], threads=1)
    golden = pick_golden(rows, predictor.bundle.modalities, predictor.task, most)
    expected = list(predictor.answer([each.row for each in golden], batch_size=1))
    with tempfile.TemporaryDirectory(prefix="fuseline-rehearsal-") as room:
        told, problem, first = _ask(folder, predictor, golden, Path(room))
    patterns = dict(sorted(Counter(each.pattern for each in golden).items()))
    found: dict[str, Any] = {"rows": len(golden), "patterns": patterns, "problem": problem}
    if told is not None:
        found |= compare(predictor.task, golden, expected, evaluated, told["answers"])
        found |= {"installed": told["installed"], "python": told["python"], "first_answer_seconds": first}
    return Rehearsal(**found, seconds=time.perf_counter() - began)


def _ask(
    folder: Path, predictor: Predictor, golden: Sequence[Golden], room: Path
) -> tuple[dict[str, Any] | None, str | None, float | None]:
    """Return what the driver wrote, or why it wrote nothing, and how long the first answer took."""
    python = build_environment(read_pins(folder / "requirements.txt"), room / "environment")
    shutil.copytree(folder, room / "bundle")
    (room / "home").mkdir()
    modalities = predictor.bundle.modalities
    questions = [
        constants_of(each.row, modalities, predictor.several, predictor.layout, room / "files" / str(number))
        for number, each in enumerate(golden)
    ]
    (room / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    shutil.copy(DRIVER, room / "driver.py")
    command = [str(python), "-I", "-B", str(room / "driver.py"), str(room / "questions.json"), str(room / "told.json")]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=room / "bundle", env={"HOME": str(room / "home")}, check=False, capture_output=True, text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"no answer after {TIMEOUT_S} s", None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, (lines[-1] if lines else f"ended with {done.returncode} and said nothing")[:500], None
    told = json.loads((room / "told.json").read_text(encoding="utf-8"))
    later = sum(answer["seconds"] for answer in told["answers"][1:])
    return told, None, time.perf_counter() - began - later


def compare(
    task: Task, golden: Sequence[Golden], expected: Sequence[Answer], evaluated: Sequence[Floats],
    answers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Return how far the bundle's own answers agree with those given here, and with the evaluation."""
    same, difference, as_evaluated = [], 0.0, []
    for each, here, there in zip(golden, expected, answers, strict=True):
        probs = np.asarray(there["probabilities"], dtype=np.float32)
        fits = probs.shape == here.probabilities.shape
        said = [line.strip() for line in there["printed"].splitlines()]
        names = tell(task, task.answer(each.row.text, here.probabilities))
        same.append(fits and len(said) == len(names) and all(map(str.startswith, said, names)))
        difference = max(difference, float(np.abs(probs - here.probabilities).max()) if fits else 1.0)
        if each.number is not None and fits:
            decided = task.decide(np.atleast_2d(probs))
            said_UC = np.asarray(evaluated[each.number]).reshape(-1, len(task.classes))
            as_evaluated.append(bool((decided == task.decide(said_UC)).all()))
    return {
        "agreement": float(np.mean(same)),
        "max_difference": difference,
        "evaluation_agreement": float(np.mean(as_evaluated)) if as_evaluated else None,
    }


def tell(task: Task, answer: Mapping[str, Any]) -> list[str]:
    """Return how each line begins that the README's snippet prints for an answer."""
    if "entities" in answer:
        return [f"{one['start']} {one['end']} {one['label']} " for one in answer["entities"]]
    labels = [label for label in task.labels if label in answer["labels"]] if "labels" in answer else [answer["label"]]
    return [f"{label} " for label in labels]
