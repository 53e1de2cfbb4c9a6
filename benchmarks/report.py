"""Part of the benchmark: from the answers to 100,000 test rows to the page about them, in seconds and MB.

The answers are drawn: of the classes, members and modalities of params.yaml, in groups of 1 to 4 rows, and of a
champion that is a little worse. What models take to answer is not in it, nor what the stage `explain` finds. It runs as
a process of its own, for its memory: `python -m benchmarks.report ROWS` where params.yaml is.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.spine import run
from fuseline.config import Params, load
from fuseline.evaluation import slices
from fuseline.evaluation.against import Answered, Rows, set_against
from fuseline.models.combine import patterns_of
from fuseline.records import (
    Benchmark,
    Combination,
    DataManifest,
    Latency,
    Leakage,
    Parity,
    Preparation,
    Rehearsal,
    Validation,
    Verdict,
)
from fuseline.report.page import Story, render
from fuseline.stages import entry
from fuseline.stages.evaluate import Predicted, measure
from fuseline.tasks.base import Task, Truth

ROWS = 100_000
CUTS = {"label": 8, "modalities": 3, "length": 5, "source": 20, "meta.kind": 20}
"""How many slices each cut has."""


def measure_report(clone: Path) -> dict[str, Any]:
    """Measure with the params of a clone."""
    _, _, told = run(clone, sys.executable, "-m", "benchmarks.report", str(ROWS))
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def main(rows: int) -> None:
    """Draw answers, time what is made of them, and print the findings as JSON."""
    params = load(Path("params.yaml"))
    task = entry.task_of(params)
    random = np.random.default_rng(0)
    predicted = draw(params, task, rows, random)
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = step()
        seconds[name] = time.perf_counter() - started
        return found

    weights = dict.fromkeys(predicted.members, 1 / len(predicted.members))
    combination = Combination(weights=weights, temperature=1.0, pool="geometric")
    evaluation = timed("evaluation", lambda: measure(params, combination, predicted))
    cuts = {by: slices.masks(names) for by, names in predicted.slices.items()}
    known = Rows(predicted.ids, predicted.groups_N, predicted.texts, cuts)
    champion = answer(predicted.truth, 1.4, random)
    against = timed(
        "against",
        lambda: set_against(
            "v1.0.0",
            Answered.of(task, champion, predicted.truth),
            Answered.of(task, predicted.ensemble_UC, predicted.truth),
            known,
            params.evaluate.resamples,
            params.evaluate.confidence,
        ),
    )
    flips = (*against.better.shown, *against.worse.shown)
    story = Story(
        name="fusion", version=None, run="made up", created="2026-01-01T00:00:00+00:00",
        verdict=Verdict(blessed=False, quality=True, serving=True, champion="v1.0.0", rules=[]),
        evaluation=evaluation, against=against, benchmark=timings(),
        parity=Parity(
            rows=rows, batch_sizes=[1], max_logit_difference=0, relative_logit_difference=0, argmax_agreement=1,
            evaluation_agreement=1, metric=task.headline, drop=0, published="fp32", traced_nodes=0, variants={},
        ),
        rehearsal=Rehearsal(rows=0, patterns={}, problem=None, seconds=0.0),
        manifest=DataManifest(name="made up", task=task.kind, labels=task.labels, rows=rows, shards=[]),
        validation=Validation(passed=True, rows=rows, quarantined=0, why="none is quarantined", expectations=[]),
        preparation=Preparation(rows={"test": rows}, groups={"test": len(set(predicted.groups_N))}, labels={}),
        leakage=Leakage(duplicates=0, joined=0, largest_family=1, across={}, held_out={}),
        histories={}, lineage={}, rows=pick(predicted, [flip.id for flip in flips]),
    )  # fmt: skip
    page = timed("page", lambda: render(story))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slices_shown = sum(len(cut) for cut in evaluation.slices.values())
    print(json.dumps({
        "rows": rows, "slices": slices_shown, "seconds": seconds, "page_mb": len(page.encode()) / 1e6,
        "peak_memory_gb": peak / 1e6,
    }))  # fmt: skip


def draw(params: Params, task: Task, rows: int, random: np.random.Generator) -> Predicted:
    """Draw rows, their labels, and what each system says of them."""
    labels_N = random.integers(len(task.labels), size=rows)
    targets = [task.labels[label] for label in labels_N]
    texts = [f"a made-up text, number {number}" for number in range(rows)]
    truth = task.find_truth(labels_N.tolist(), targets, texts)
    groups_N = np.repeat(np.arange(rows), random.integers(1, 5, size=rows))[:rows].astype(str)
    names = list(params.members.all())
    used = params.members.modalities()
    cut: dict[str, slices.Names] = {
        by: [[f"{by} {number}"] for number in random.integers(count, size=rows)] for by, count in CUTS.items()
    }
    return Predicted(
        ids=[f"e{number}" for number in range(rows)], groups_N=groups_N, shards=["a.parquet"] * rows, texts=list(texts),
        targets=targets, slices=cut, truth=truth, unseen=0,
        present={name: np.full(rows, True) for name in used},
        ensemble_UC=answer(truth, 1.5, random), members={name: answer(truth, 1.2, random) for name in names},
        before={name: answer(truth, 0.8, random) for name in names}, student_UC=None,
        patterns={name: answer(truth, 1.0, random) for name in patterns_of(used)[1:-1]},
        disturbed={name: answer(truth, 1.3, random) for name in params.evaluate.robustness},
    )  # fmt: skip


def answer(truth: Truth, skill: float, random: np.random.Generator) -> NDArray[np.floating]:
    """Draw probabilities [U, C] that point at the true class the oftener the greater the skill."""
    classes = int(truth.labels_U.max()) + 1
    logits_UC = random.normal(size=(len(truth.labels_U), classes)) + 2 * skill * np.eye(classes)[truth.labels_U]
    odds_UC = np.exp(logits_UC)
    found: NDArray[np.floating] = odds_UC / odds_UC.sum(1, keepdims=True)
    return found


def pick(predicted: Predicted, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Give chosen rows a text and a picture of noise, which hardly compresses."""
    places, random, found = {one: at for at, one in enumerate(predicted.ids)}, np.random.default_rng(1), {}
    for one in ids:
        file = io.BytesIO()
        Image.fromarray(random.integers(256, size=(224, 224, 3), dtype=np.uint8)).save(file, "PNG")
        picture = {"bytes": file.getvalue(), "path": None}
        found[one] = {"id": one, "text": predicted.texts[places[one]], "image": picture}
    return found


def timings() -> Benchmark:
    """Say that nothing was timed."""
    none = Latency(batch_size=1, calls=0, mean_ms=0, p50_ms=0, p95_ms=0, p99_ms=0, examples_per_second=0)
    return Benchmark(
        device="none", gpu=None, providers_asked=[], providers_used=[], threads=1, cpu="", cores=1, platform="",
        onnxruntime="", model_bytes=0, load_ms=0, peak_memory_bytes=0, batches={"batch_1": none},
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
