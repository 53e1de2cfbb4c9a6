"""Time bundles side by side, through the runtime that serves them; imports no torch."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from fuseline.benchmark import conditions as found
from fuseline.benchmark.candidate import Call, Candidate
from fuseline.benchmark.loops import deal_arrivals, serve, take_turns
from fuseline.benchmark.percentiles import compare, find_interval, find_intervals, find_p99, summarize
from fuseline.benchmark.providers import find_fallen, find_missing
from fuseline.benchmark.roofline import measure_rooflines
from fuseline.benchmark.running import TENSORRT, Timer
from fuseline.config import Benchmark as Conditions
from fuseline.config import Server
from fuseline.errors import BundleError
from fuseline.progress import Progress
from fuseline.records import Benchmark, Latency, Load, Offline, Rival
from fuseline.runtime.predictor import Row
from fuseline.runtime.session import NVIDIA, describe_device, gpu_name

OURS = "bundle"
Sides = Mapping[str, Candidate]
OpenPeers = Callable[[bool], Mapping[str, Timer]]
"""Is told whether on a GPU."""


def measure(
    folder: Path, given: Iterable[Row], conditions: Conditions, others: Mapping[str, Path] | None = None,
    open_peers: OpenPeers | None = None,
) -> Benchmark:  # fmt: skip
    """Measure latency and throughput of a bundle on rows, in each scenario.

    All sides take turns call by call; where rows arrive by chance, each has its time to itself, one after the other.

    Args:
        given: rows, of which the first are taken, as many as the conditions say.
        others: bundles to be timed beside it, by name.
        open_peers: gives what else answers the bundle's inputs, by name, on the device that the bundle runs on.

    Raises:
        BundleError: a bundle is incomplete, altered, or cannot be loaded; or there is no row.
    """
    rows = list(islice(given, conditions.rows))
    if not rows:
        raise BundleError(f"{folder}: there is no row to ask it with; expected at least one")
    if TENSORRT in conditions.providers and not conditions.cuda.tf32:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # TensorRT has no option for it
    watch = found.Watch()
    ours = Candidate.open(folder, conditions, rows[0])
    sides = {OURS: ours}
    sides |= {name: Candidate.open(path, conditions, rows[0]) for name, path in (others or {}).items()}
    peers = open_peers(ours.timer.on_gpu) if open_peers else {}
    sides |= {name: ours.peer(timer, rows[0]) for name, timer in peers.items()}
    timed = _time_sides(sides, rows, conditions)
    rooflines, ceilings = measure_rooflines(folder, ours, rows, conditions)
    contention = watch.read()
    why = found.why_invalid(contention)
    return Benchmark(
        **_describe(conditions, ours.timer.on_gpu),
        **timed.pop(OURS).model_dump(exclude={"faster", "graph_faster"}),
        roofline=rooflines,
        ceilings=ceilings,
        rows=len(rows),
        others=timed,
        peak_memory_bytes=found.peak_memory_bytes(),
        contention=contention,
        valid=not why,
        invalid_because=why,
    )


def _describe(conditions: Conditions, on_gpu: bool) -> dict[str, Any]:
    return {
        "providers_asked": conditions.providers,
        "threads": conditions.threads,
        "cpu": found.cpu_name(),
        "cores": os.cpu_count() or 1,
        "platform": platform.platform(),
        "onnxruntime": ort.__version__,
        "versions": found.versions(),
        "clocks_mhz": found.clocks_mhz(),
        "cuda": conditions.cuda.model_dump() if on_gpu else {},
        "confidence": conditions.confidence,
    }


def _describe_side(side: Candidate, conditions: Conditions) -> dict[str, Any]:
    nodes = side.nodes
    device = describe_device([NVIDIA[0]] if side.timer.on_gpu else [])
    return {
        "device": device,
        "gpu": gpu_name() if side.timer.on_gpu else None,
        "providers_used": sorted(nodes, key=lambda name: -nodes[name].total()),
        "nodes": {name: kinds.total() for name, kinds in nodes.items()},
        "fallen": find_fallen(nodes),
        "missing": {} if side.is_peer else find_missing(conditions.providers, nodes),
        "model_bytes": side.model_bytes,
        "load_ms": side.load_ms,
        "first_answer_ms": side.first_answer_ms,
        "memory_bytes": side.memory_bytes,
    }


def _time_sides(sides: Sides, rows: Sequence[Row], conditions: Conditions) -> dict[str, Rival]:
    calls = {f"batch_{size}": _stream(sides, rows, size, conditions) for size in conditions.batch_sizes}
    sizes = dict(zip(calls, conditions.batch_sizes, strict=True))
    offline, served = _offline(sides, rows, conditions), _serve(sides, rows, conditions)
    level = conditions.confidence
    return {
        name: Rival(
            **_describe_side(side, conditions),
            batches={batch: _latency(of[name], sizes[batch], level) for batch, of in calls.items()},
            offline=offline.get(name),
            server=served[name],
            faster={batch: compare(_whole(of[OURS]), _whole(of[name]), level) for batch, of in calls.items()},
            graph_faster={
                batch: compare(_graph(of[OURS]), _graph(of[name]), level)
                for batch, of in calls.items()
                if (of[OURS][0].copy_ms is None) == (of[name][0].copy_ms is None)
            },
        )
        for name, side in sides.items()
    }


def _stream(sides: Sides, rows: Sequence[Row], size: int, conditions: Conditions) -> dict[str, list[Call]]:
    progress = Progress(f"benchmark batch {size}", conditions.warmup + conditions.calls)
    calls = {name: partial(_call, side, rows, size) for name, side in sides.items()}
    return take_turns(calls, conditions.calls, conditions.warmup, conditions.seed, progress.at)


def _call(side: Candidate, rows: Sequence[Row], size: int, turn: int) -> Call:
    return side.call([rows[(turn * size + offset) % len(rows)] for offset in range(size)])


def _whole(calls: Sequence[Call]) -> list[float]:
    return [call.whole_ms for call in calls]


def _graph(calls: Sequence[Call]) -> list[float]:
    return [call.graph_ms for call in calls]


def _latency(calls: Sequence[Call], size: int, confidence: float) -> Latency:
    copies = [call.copy_ms for call in calls if call.copy_ms is not None]
    apart = {
        "graph_p50_ms": float(np.median(_graph(calls))),
        "copy_p50_ms": float(np.median(copies)) if copies else None,
        "cpu_p50_ms": float(np.median([call.cpu_ms for call in calls])),
    }
    return summarize(_whole(calls), size, confidence).model_copy(update=apart)


def _offline(sides: Sides, rows: Sequence[Row], conditions: Conditions) -> dict[str, Offline]:
    asked = conditions.offline
    if asked is None:
        return {}
    progress = Progress(f"benchmark of {asked.rows} rows at once", asked.calls + 1)
    calls = {name: partial(_call, side, rows, asked.rows) for name, side in sides.items()}
    turns = take_turns(calls, asked.calls, 1, conditions.seed, progress.at)
    rates = {name: [1000 * asked.rows / call.whole_ms for call in of] for name, of in turns.items()}
    return {
        name: Offline(
            rows=asked.rows, calls=asked.calls, examples_per_second=float(np.median(of)),
            interval=find_interval(of, 0.5, conditions.confidence),
        )
        for name, of in rates.items()
    }  # fmt: skip


def _serve(sides: Sides, rows: Sequence[Row], conditions: Conditions) -> dict[str, dict[str, Load]]:
    if conditions.server is None:
        return {name: {} for name in sides}
    progress = Progress("benchmark of rows that arrive", len(sides) * len(conditions.server.rates))
    loads: dict[str, dict[str, Load]] = {name: {} for name in sides}
    for rate in conditions.server.rates:
        for name in random.Random(conditions.seed).sample(list(sides), len(sides)):  # noqa: S311
            loads[name][key_of(rate)] = _load(sides[name], rows, rate, conditions.server, conditions)
            progress.at(sum(map(len, loads.values())), f"{rate:g} per second")
    return loads


def key_of(rate: float) -> str:
    """Return what a rate is called in the record: without a dot, which parts the names of a gate's metric."""
    return f"rate_{rate:g}".replace(".", "_")


def _load(side: Candidate, rows: Sequence[Row], rate: float, server: Server, conditions: Conditions) -> Load:
    arrivals = deal_arrivals(rate, server.rows, conditions.seed)
    done = serve(lambda taken: side.serve([rows[row % len(rows)] for row in taken]), arrivals, server.largest_batch)
    p50, p95 = np.percentile(done.latencies_ms, [50, 95])
    return Load(
        rate=rate,
        rows=server.rows,
        largest_batch=server.largest_batch,
        mean_batch=float(np.mean(done.batches)),
        examples_per_second=server.rows / done.seconds,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=find_p99(done.latencies_ms),
        intervals=find_intervals(done.latencies_ms, conditions.confidence),
    )
