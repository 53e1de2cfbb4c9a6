"""Parts of the benchmark on the embedded data set: accuracy, the whole run, latency, reproduction."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from fuseline.config import load
from fuseline.lineage.git import git, take_snapshot
from fuseline.lineage.process import python_env
from fuseline.lineage.workspace import STATE, Workspace, close_workspace, open_workspace
from fuseline.records import Combination, Evaluation, Parity, sha256_of
from fuseline.runtime.session import providers_used

SEEDS = (0, 1, 2)
ROUNDS = 200
"""Calls of each side in the interleaved latency run."""


@contextmanager
def clone_of(repo: Path, name: str) -> Iterator[Path]:
    """Yield a clone of the tree as it stands, with the shared cache."""
    workspace = Workspace(repo, f"bench-{name}-{os.getpid()}", take_snapshot(repo))
    open_workspace(workspace)
    try:
        yield workspace.clone
    finally:
        close_workspace(workspace)


def run(clone: Path, *command: str) -> tuple[float, int, str]:
    """Run a command in a clone; return seconds, peak memory of its process tree in bytes, and its output."""
    start, peak = time.monotonic(), 0
    env = {**os.environ, **python_env(clone)}
    with (clone / ".bench.log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=clone, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        tree = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                peak = max(peak, tree_memory(tree))
                time.sleep(0.2)
        finally:
            if process.poll() is None:  # interrupted: no training may outlive us
                os.killpg(process.pid, signal.SIGTERM)
        seconds = time.monotonic() - start
        log.seek(0)
        output = log.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    return seconds, peak, output


def tree_memory(tree: psutil.Process) -> int:
    """Sum the memory of a process and its children; shared pages count once per process, so this is an upper bound."""
    total = 0
    for process in [tree, *tree.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def dvc(clone: Path, *arguments: str) -> tuple[float, int, str]:
    """Run DVC in a clone."""
    return run(clone, sys.executable, "-m", "dvc", *arguments)


def measure_accuracy(clone: Path) -> dict[str, Any]:
    """Train and evaluate with each seed."""
    found: dict[str, Any] = {}
    for seed in SEEDS:
        params = yaml.safe_load((clone / "params.yaml").read_text())
        params["train"]["seed"] = seed
        (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
        seconds, _, _ = dvc(clone, "repro", "evaluate")
        evaluation = Evaluation.read(clone / "build/evaluate/evaluation.json")
        found[f"seed_{seed}"] = {
            "ensemble": evaluation.ensemble["accuracy"].value,
            "macro_f1": evaluation.ensemble["macro_f1"].value,
            "members": {name: metrics["accuracy"].value for name, metrics in evaluation.members.items()},
            "fusion_gain": evaluation.fusion_gain["accuracy"].value,
            "seconds": seconds,
        }
    for key in ("ensemble", "macro_f1", "fusion_gain"):
        found[f"mean_{key}"] = float(np.mean([found[f"seed_{seed}"][key] for seed in SEEDS]))
    return found


def measure_retrain(clone: Path) -> dict[str, Any]:
    """Time the flow from an empty cache, then with nothing changed; then a no-op `dvc repro`."""
    shutil.rmtree(clone / STATE, ignore_errors=True)
    (clone / ".dvc/config.local").unlink()  # a stranger's clone: a cache and remotes of its own, and no champion
    for tag in git(clone, "tag").split():
        git(clone, "tag", "--delete", tag)
    first_s, first_memory, _ = run(clone, sys.executable, "-m", "flows.retrain")
    noop_s, _, told = run(clone, sys.executable, "-m", "flows.retrain")
    dvc(clone, "repro")
    repro = [dvc(clone, "repro")[0] for _ in range(3)]
    return {
        "seconds": first_s, "peak_memory_bytes": first_memory, "noop_flow_seconds": noop_s,
        "noop_flow_said_so": "Nothing to do" in told, "noop_dvc_repro_seconds": float(np.median(repro)),
    }  # fmt: skip


def measure_latency(clone: Path) -> dict[str, Any]:
    """Time the graph and torch eager on the same inputs in turn; report the median of the paired ratios."""
    dvc(clone, "repro", "export")
    os.chdir(clone)
    import torch

    from fuseline.runtime.predictor import Predictor
    from fuseline.runtime.rows import read_parquet
    from fuseline.training.checkpoints import load_ensemble

    torch.set_num_threads(2)
    ensemble = load_ensemble(Path("build/train"), Combination.read(Path("build/combine/combination.json")))
    predictor = Predictor(Path("build/export/bundle"), ["CPUExecutionProvider"], threads=2)
    rows = list(read_parquet(Path("build/prepare/test"), predictor.bundle.modalities))
    found: dict[str, Any] = {"parity": Parity.read(Path("build/export/parity.json")).model_dump()}
    for size in load().benchmark.batch_sizes:
        times_ms = {"graph": [], "torch": []}  # type: dict[str, list[float]]
        for call in range(ROUNDS + 10):
            batch = [rows[(call * size + i) % len(rows)] for i in range(size)]
            feeds = predictor.feeds([predictor.read(row) for row in batch])
            given = {name: torch.from_numpy(array) for name, array in feeds.items()}
            sides: list[tuple[str, Callable[[], Any]]] = [
                ("graph", lambda feeds=feeds: predictor.session.run(None, feeds)),  # type: ignore[misc]
                ("torch", lambda given=given: ensemble(**given)),  # type: ignore[misc]
            ]
            with torch.inference_mode():
                for name, side in sides if call % 2 else sides[::-1]:
                    start = time.perf_counter()
                    side()
                    if call >= 10:
                        times_ms[name].append((time.perf_counter() - start) * 1000)
        found[f"batch_{size}"] = {
            "graph_p50_ms": float(np.median(times_ms["graph"])),
            "torch_p50_ms": float(np.median(times_ms["torch"])),
            "median_paired_ratio": float(np.median(np.array(times_ms["graph"]) / np.array(times_ms["torch"]))),
            "rounds": ROUNDS,
            "providers_used": providers_used(predictor.session),
        }
    return found


def measure_reproduction(clone: Path) -> dict[str, Any]:
    """Force every stage twice and compare the weights' hashes."""
    hashes = []
    for _ in range(2):
        dvc(clone, "repro", "--force", "combine")
        hashes.append(
            {
                str(path.relative_to(clone)): sha256_of(path)
                for path in sorted(clone.glob("build/train/**/*.safetensors"))
            }
        )
    return {"identical": hashes[0] == hashes[1], "sha256": hashes[0]}
