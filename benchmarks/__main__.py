"""Measure the project's own promises: `make bench` or `make bench ARGS="PART …"`; writes a dated record beside itself.

Parts, all by default, about 50 minutes on 2 CPU cores:
accuracy   three seeds on the embedded data set
retrain    time and memory of the whole flow, and of one that finds nothing to do
latency    the exported graph against torch eager, interleaved
pair       BERT-base with ResNet-50: torch in its ways, and the graph in its variants
honesty    one bundle twice: how often the benchmark shows a difference that there is not
reproduce  hashes of two forced runs
training   rows per second of training beside a plain Trainer loop and AutoGluon-Multimodal
report     from the answers to 100 k test rows to the page about them
data       ingest, validate and prepare at 10 k, 100 k and 1 M rows, beside the plain way
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import data, honesty, pair, report, spine, training
from fuseline.benchmark.conditions import cpu_name
from fuseline.lineage.git import root, take_snapshot
from fuseline.records import write_json
from fuseline.runtime.session import describe_device

PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "accuracy": spine.measure_accuracy,
    "retrain": spine.measure_retrain,
    "latency": spine.measure_latency,
    "pair": pair.measure_pair,
    "honesty": honesty.measure_honesty,
    "reproduce": spine.measure_reproduction,
    "data": data.measure_sizes,
    "training": training.measure_training,
    "report": report.measure_report,
}


def main() -> None:
    """Run the parts that were asked for, each in a clone of its own, and write their record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *PARTS], default=list(PARTS))
    parts = parser.parse_args().parts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    repo = root(Path.cwd())
    record: dict[str, Any] = {"conditions": conditions(repo)}
    for name in parts:
        print(f"bench: {name}", flush=True)
        with spine.clone_of(repo, name) as clone:
            record[name] = PARTS[name](clone)
        print(record[name], flush=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    path = Path("benchmarks") / f"{stamp}-{'all' if parts == list(PARTS) else '-'.join(parts)}.json"
    write_json(repo / path, record)
    print(f"written: {path}")


def conditions(repo: Path) -> dict[str, Any]:
    """Describe machine, software and load."""
    pressure = Path("/proc/pressure/cpu")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": take_snapshot(repo),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "device": describe_device([]),
        "cpu_pressure_before": pressure.read_text().split("\n")[0] if pressure.exists() else "",
    }


if __name__ == "__main__":
    main()
