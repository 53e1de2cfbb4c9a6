"""How near a graph comes to the machine's ceilings (Williams, Waterman and Patterson 2009), node by node.

Each node could not end before its arithmetic is done at the rate that a large product of matrices reaches, nor before
its bytes are moved at the rate of a copy of their size. The sum over the nodes is the call's floor.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.ceiling import Providers, bandwidth_at, open_probes
from fuseline.benchmark.counting import Node, read_profile
from fuseline.benchmark.loops import take_turns
from fuseline.benchmark.running import Spent, provider_options
from fuseline.config import Benchmark as Conditions
from fuseline.records import Roofline
from fuseline.runtime.bundle import MODEL
from fuseline.runtime.predictor import OUTPUTS, Feeds, Row
from fuseline.runtime.session import is_on_gpu, make_settings, providers_used

WARMUP = 3
SLOWEST = 8
"""Kinds of nodes that are listed."""


def measure_rooflines(
    folder: Path, side: Candidate, rows: Sequence[Row], conditions: Conditions
) -> tuple[dict[str, Roofline], dict[str, float]]:
    """Return the roofline of each batch size, and the machine's ceilings; nothing where params leave it out."""
    if conditions.roofline is None:
        return {}, {}
    used = providers_used(side.predictor.session)
    device = "cuda" if is_on_gpu(used) else "cpu"
    asked = {size: _feed(side, rows, size) for size in conditions.batch_sizes}
    providers = _with_options(used, conditions)
    nodes = {size: _profile(folder, side, feeds, providers, counted=True) for size, feeds in asked.items()}
    seen = {size: _profile(folder, side, feeds, providers, counted=False) for size, feeds in asked.items()}
    slowest = {size: _find_slowest(of) for size, of in seen.items()}
    dtypes = {node.dtype for of in nodes.values() for node in of if node.flops}
    probes = open_probes(sorted(dtypes), device, providers, conditions.threads)
    turns = {name: lambda turn, probe=probe: probe.run() for name, probe in probes.items()}
    turns |= {str(size): lambda turn, feeds=feeds: _time(side, feeds) for size, feeds in asked.items()}
    reached = take_turns(turns, conditions.roofline, WARMUP, conditions.seed)
    middle = {name: float(np.median(of)) for name, of in reached.items()}
    ceilings = {name: middle[name] for name in probes}
    weighed = {
        f"batch_{size}": _weigh(size, of, middle[str(size)], ceilings).model_copy(update={"slowest": slowest[size]})
        for size, of in nodes.items()
    }
    return weighed, ceilings


def _feed(side: Candidate, rows: Sequence[Row], size: int) -> Feeds:
    """Fill a batch with one row, the first that lacks nothing: all of it is real work, and goes into one call."""
    items = (side.predictor.read(row) for row in rows)
    first = next((one for one in items if all(item is not None for item in one.values())), None)
    return side.predictor.feeds([first or side.predictor.read(rows[0])] * size)


def _time(side: Candidate, feeds: Feeds) -> float:
    side.timer(feeds)  # what took its turn before left the caches full of its own
    side.timer.spent = Spent()
    side.timer(feeds)
    return side.timer.spent.graph_ms


def _with_options(used: Sequence[str], conditions: Conditions) -> Providers:
    """Give the providers the options of the bundle's, but for CUDA graphs, in which no node can be seen."""
    options = provider_options(conditions.cuda.model_copy(update={"graph": False}))
    return [(name, options.get(name, {})) for name in used]


def _profile(folder: Path, side: Candidate, feeds: Feeds, providers: Providers, counted: bool) -> list[Node]:
    """Run the graph once more under onnxruntime's profiler.

    Args:
        counted: whether weights are left as they are, so that the profile has their shapes; that costs time.
    """
    settings = make_settings(side.predictor.session.get_session_options().intra_op_num_threads)
    if counted:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as home:
        settings.enable_profiling, settings.profile_file_prefix = True, f"{home}/profile"
        profiled = ort.InferenceSession(str(folder.resolve() / MODEL), settings, providers=providers)
        for _ in range(1 if counted else WARMUP):
            profiled.run(OUTPUTS, feeds)
        return read_profile(Path(profiled.end_profiling()))


def _find_slowest(nodes: Sequence[Node]) -> dict[str, float]:
    took = defaultdict[str, float](float)
    for node in nodes:
        took[node.kind] += node.ms
    slowest = sorted(took, key=lambda kind: -took[kind])
    return {kind: took[kind] / sum(took.values()) for kind in slowest[:SLOWEST]}


def _weigh(size: int, nodes: Sequence[Node], graph_ms: float, ceilings: Mapping[str, float]) -> Roofline:
    flops = defaultdict[str, float](float)
    for node in nodes:
        flops[node.dtype] += node.flops or 0.0
    known = {dtype: count for dtype, count in flops.items() if count}
    floor_ms = 1000 * sum(_floor_s(node, ceilings) for node in nodes)
    arithmetic_ms = 1000 * sum(count / ceilings[dtype] for dtype, count in known.items() if dtype in ceilings)
    return Roofline(
        batch_size=size,
        flops=known,
        moved_bytes=sum(node.moved_bytes for node in nodes),
        floor_ms=floor_ms,
        graph_ms=graph_ms,
        share=floor_ms / graph_ms,
        flops_share=arithmetic_ms / graph_ms,
        uncounted=dict(Counter(node.kind for node in nodes if node.flops is None)),
    )


def _floor_s(node: Node, ceilings: Mapping[str, float]) -> float:
    arithmetic = (node.flops or 0.0) / ceilings[node.dtype] if node.dtype in ceilings else 0.0
    return max(arithmetic, node.moved_bytes / bandwidth_at(node.moved_bytes, ceilings))
