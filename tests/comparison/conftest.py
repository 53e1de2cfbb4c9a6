"""Models as their files tell of them, made up: a git repository under DVC, whose stages are recorded as run."""

from __future__ import annotations

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
from fuseline.records import Benchmark, Bundle, BundleFile, Evaluation, Latency, Preparation, Slice
from fuseline.tasks.classification import Classification

LABELS = ["red", "green", "blue"]
OUTS = ("evaluate", "export", "benchmark", "prepare")


def sure(answers: list[int], classes: int = 3) -> list[list[float]]:
    return (0.7 * np.eye(classes)[answers] + 0.1).tolist()


def write_model(
    build: Path, ids: list[str], true: list[int], answers: list[int], *, labels: list[str] = LABELS,
    system: str = "ensemble", student: list[int] | None = None, size: int = 1000, ms: float = 2.0,
) -> None:  # fmt: skip
    """Write what the stages write of a model that gave these answers."""
    task = Classification(labels)
    probs = sure(answers, len(labels))
    named = [f"g{one}" for one in ids]
    columns: dict[str, Any] = {
        "id": ids, "group": named, "shard": ["s"] * len(ids), "label": true, "probabilities": probs,
        "slice.half": [["first" if row < len(ids) / 2 else "second"] for row in range(len(ids))],
    }  # fmt: skip
    if student is not None:
        columns["student"] = sure(student, len(labels))
    truth = task.assume_truth(true)

    def reach(said: list[list[float]]) -> Any:
        return estimate(Scored.of(task, np.array(said), truth), np.array(named), 50, 0.95)

    metrics, learner = reach(probs), None if student is None else reach(columns["student"])
    evaluation = Evaluation(
        labels=labels, rows=len(ids), confidence=0.95, ensemble=metrics, members={"text": metrics}, before={},
        fine_tuning_gain={}, student=learner, student_gain=None if learner is None else learner, fusion_gain=metrics,
        best_single="text", patterns={}, per_class=task.table(np.array(probs), truth)[0],
        confusion=[], weights={"text": 1.0}, temperature=1.0,
        slices={"half": {name: Slice(rows=1, ensemble=metrics, student=learner) for name in ("first", "second")}},
    )  # fmt: skip
    evaluation.write(build / "evaluate" / "evaluation.json")
    pq.write_table(pa.table(columns), build / "evaluate" / "predictions.parquet")
    Bundle(
        name="tiny", task="classification", labels=labels, modalities=["text"],
        members=["text"] if system == "ensemble" else ["student"], max_tokens=8, inputs={}, outputs={},
        versions={"torch": "2"}, data="0" * 64, code="c" * 64, files={"model.onnx": BundleFile(sha256="0", bytes=size)},
    ).write(build / "export" / "bundle" / "bundle.json")  # fmt: skip
    latency = Latency(batch_size=1, calls=5, mean_ms=ms, p50_ms=ms, p95_ms=ms, p99_ms=ms, examples_per_second=1000 / ms)
    other = "ensemble" if system == "student" else "student"
    Benchmark(
        device="CPU", gpu=None, providers_asked=[], providers_used=[], threads=1, cpu="", cores=1, platform="",
        onnxruntime="1", model_bytes=size, load_ms=1.0, peak_memory_bytes=1, batches={"batch_1": latency},
        beside=None if student is None else {"system": other, "model_bytes": 1, "batches": {}},  # type: ignore[arg-type]
    ).write(build / "benchmark" / "benchmark.json")  # fmt: skip
    Preparation(rows={"train": 10, "test": len(ids)}, groups={}, labels={}).write(
        build / "prepare" / "preparation.json"
    )


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
