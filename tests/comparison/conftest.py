"""Models as their files tell of them, made up: a git repository under DVC, whose stages are recorded as run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fuseline.evaluation.metrics import Scored, estimate
from fuseline.lineage.dvc import dvc
from fuseline.records import Benchmark, Bundle, BundleFile, Evaluation, Latency, Preparation, Slice, write_json
from fuseline.tasks import KINDS, build_task
from fuseline.tasks.base import Floats, Task, Truth

LABELS = ["red", "green", "blue"]
OUTS = ("evaluate", "export", "benchmark", "prepare")
TEXT = "Ann went"


def problem(kind: str, labels: list[str] = LABELS, scheme: str = "bio") -> Task:
    return build_task(kind, labels, scheme)


def name_target(task: Task, label: int) -> str:
    """Say of a row that it is of one label, as the task's data would: of ner its first word is."""
    name = task.labels[label]
    return {"classification": name, "multilabel": json.dumps([name]), "ner": json.dumps([[0, 3, name]])}[task.kind]


def find_truth(task: Task, targets: list[str]) -> Truth:
    texts = [TEXT] * len(targets)
    numbers = [task.number(target, TEXT) for target in targets]
    return task.find_truth(numbers, targets, texts)


def sure(task: Task, answers: list[int]) -> Floats:
    """Return what is said of the units where each row is answered by one label [U, C]."""
    units = find_truth(task, [name_target(task, answer) for answer in answers]).labels_U
    return 0.7 * np.eye(len(task.classes))[units] + 0.3 / len(task.classes)


def write_model(
    build: Path, ids: list[str], true: list[int], answers: list[int], *, kind: str = "classification",
    labels: list[str] = LABELS, scheme: str = "bio", targets: dict[int, str] | None = None,
    system: str = "ensemble", timed: str | None = None, student: list[int] | None = None,
    size: int = 1000, ms: float = 2.0,
) -> None:  # fmt: skip
    """Write what the stages write of a model that gave these answers.

    Args:
        true, answers: each row's label, and what the ensemble answers.
        targets: of some rows, what is true of them in the data's own words, instead.
        timed: the system that the benchmark is of, where it is another one than is exported.
    """
    task = problem(kind, labels, scheme)
    probs = sure(task, answers)
    named = [f"g{one}" for one in ids]
    told = [(targets or {}).get(row, name_target(task, label)) for row, label in enumerate(true)]
    truth = find_truth(task, told)
    columns: dict[str, Any] = {
        "id": ids, "group": named, "shard": ["s"] * len(ids), "label": [task.number(one, TEXT) for one in told],
        "probabilities": [row.ravel() for row in truth.by_row(probs)],
        "slice.half": [["first" if row < len(ids) / 2 else "second"] for row in range(len(ids))],
    }  # fmt: skip
    if task.unit != "row":
        columns |= {"text": [TEXT] * len(ids), "target": told}
    if student is not None:
        columns["student"] = [row.ravel() for row in truth.by_row(sure(task, student))]

    def reach(said: Floats) -> Any:
        return estimate(Scored.of(task, said, truth), np.array(named), 50, 0.95)

    metrics, learner = reach(probs), None if student is None else reach(sure(task, student))
    evaluation = Evaluation(
        headline=task.headline, labels=labels, rows=len(ids), confidence=0.95, ensemble=metrics,
        members={"text": metrics}, before={}, fine_tuning_gain={}, student=learner, student_gain=learner,
        fusion_gain=metrics, best_single="text", patterns={}, per_class=task.table(probs, truth)[0],
        confusion=[], weights={"text": 1.0}, temperature=1.0,
        slices={"half": {name: Slice(rows=1, ensemble=metrics, student=learner) for name in ("first", "second")}},
    )  # fmt: skip
    evaluation.write(build / "evaluate" / "evaluation.json")
    pq.write_table(pa.table(columns), build / "evaluate" / "predictions.parquet")
    Bundle(
        name="tiny", task=kind, labels=labels, scheme=scheme if kind == "ner" else None, modalities=["text"],
        members=["text"] if system == "ensemble" else ["student"], max_tokens=8, inputs={}, outputs={},
        versions={"torch": "2"}, data="0" * 64, code="c" * 64, files={"model.onnx": BundleFile(sha256="0", bytes=size)},
    ).write(build / "export" / "bundle" / "bundle.json")  # fmt: skip
    write_json(build / "export" / "metrics.json", {"exported": {"system": system, "accuracy": 0.5}})
    latency = Latency(batch_size=1, calls=5, mean_ms=ms, p50_ms=ms, p95_ms=ms, p99_ms=ms, examples_per_second=1000 / ms)
    other = "ensemble" if (timed or system) == "student" else "student"
    Benchmark(
        device="CPU", gpu=None, providers_asked=[], providers_used=[], threads=1, cpu="", cores=1, platform="",
        onnxruntime="1", model_bytes=size, load_ms=1.0, peak_memory_bytes=1, batches={"batch_1": latency},
        beside=None if student is None else {"system": other, "model_bytes": 1, "batches": {}},  # type: ignore[arg-type]
    ).write(build / "benchmark" / "benchmark.json")  # fmt: skip
    Preparation(rows={"train": 10, "test": len(ids)}, groups={}, labels={}).write(
        build / "prepare" / "preparation.json"
    )


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of problem that members are trained for."""
    return str(request.param)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with a stage for each output, none of them run yet, and a DVC remote beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
        yield _make_project(tmp_path_factory.mktemp("project") / "repo")


def _make_project(repo: Path) -> Path:
    repo.mkdir()
    git(repo, "init", "--quiet", "--initial-branch=main")
    dvc(repo, "init", "--quiet")
    dvc(repo, "remote", "add", "--quiet", "--default", "store", "../store")
    stages: dict[str, Any] = {
        name: {"cmd": "false", "outs": [f"build/{name}"], "params": ["train"]} for name in OUTS
    }  # fmt: skip
    (repo / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (repo / "params.yaml").write_text(yaml.safe_dump({
        "train": {"seed": 0, "old": 1},
        "publish": {"name": "tiny", "remote": None, "accept_incomparable": None},
    }))  # fmt: skip
    (repo / ".gitignore").write_text("/build\n/.fuseline\n/champion\n")
    commit(repo, "Start")
    return repo


@pytest.fixture(scope="module")
def run(project: Path) -> Callable[..., Path]:
    """Give what records a model as that of the working tree: its arguments are those of `write_model`."""

    def record(*arguments: Any, **options: Any) -> Path:
        for path in project.glob("build/*/**/*.*"):
            path.unlink()  # it may be a link into the cache
        write_model(project / "build", *arguments, **options)
        dvc(project, "commit", "--quiet", "--force")
        return project

    return record


def git(repo: Path, *arguments: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=repo, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repo: Path, message: str) -> None:
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", message)
