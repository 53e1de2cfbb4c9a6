"""Time a bundle through the runtime that serves it; imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fuseline.config import Benchmark as Conditions
from fuseline.progress import Progress
from fuseline.records import Benchmark, Latency
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.session import describe_device, gpu_name, providers_used


def measure(folder: Path, rows: Sequence[Row], conditions: Conditions) -> Benchmark:
    """Measure latency and throughput of a bundle on real rows, at each batch size.

    A call is what a caller waits for: decoding, tokenizing and the graph.
    """
    start = time.perf_counter()
    predictor = Predictor(folder, conditions.providers, conditions.threads)
    load_ms = (time.perf_counter() - start) * 1000
    used = providers_used(predictor.session)
    batches = {f"batch_{size}": _measure_batch(predictor, rows, size, conditions) for size in conditions.batch_sizes}
    return Benchmark(
        device=describe_device(used),
        gpu=gpu_name() if describe_device(used).startswith("GPU") else None,
        providers_asked=conditions.providers,
        providers_used=used,
        threads=conditions.threads,
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        platform=platform.platform(),
        onnxruntime=ort.__version__,
        model_bytes=sum(file.bytes for name, file in predictor.bundle.files.items() if name.startswith("model.onnx")),
        load_ms=load_ms,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        batches=batches,
    )


def _measure_batch(predictor: Predictor, rows: Sequence[Row], size: int, conditions: Conditions) -> Latency:
    progress = Progress(f"benchmark batch {size}", conditions.warmup + conditions.calls)
    times_ms = []
    for call in range(conditions.warmup + conditions.calls):
        batch = [rows[(call * size + offset) % len(rows)] for offset in range(size)]
        times_ms.append(_time_call(predictor, batch))
        progress.at(call + 1)
    return summarize(times_ms[conditions.warmup :], size)


def _time_call(predictor: Predictor, batch: Sequence[Row]) -> float:
    start = time.perf_counter()
    for _ in predictor.answer(batch, batch_size=len(batch)):
        pass
    return (time.perf_counter() - start) * 1000


def summarize(times_ms: Sequence[float], batch_size: int) -> Latency:
    """Reduce call times to percentiles (linear interpolation) and throughput."""
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99])
    return Latency(
        batch_size=batch_size,
        calls=len(times_ms),
        mean_ms=float(np.mean(times_ms)),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        examples_per_second=1000 * batch_size * len(times_ms) / float(np.sum(times_ms)),
    )


def cpu_name() -> str:
    """Return the processor's model name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
