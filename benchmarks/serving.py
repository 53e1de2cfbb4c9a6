"""Requests per second and latency of `fuseline serve` beside plain calls of the runtime, interleaved.

    python -m benchmarks.serving BUNDLE SPLIT        such as build/export/bundle and build/prepare/test

Closed loop: each client asks again as soon as it has its answer, one row a request, over a connection that stays open.
The clients are threads of one process and share the cores with the server, so its CPU time per row stands beside.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.__main__ import conditions
from fuseline.lineage.git import root
from fuseline.records import write_json
from fuseline.runtime import Predictor, Row
from fuseline.runtime.rows import read_parquet

CPU = "CPUExecutionProvider"
CLIENTS = (1, 8, 32)
SERVERS = {"one by one": 1, "batched": 32}
"""By name, rows of one call of the graph."""
ROUNDS, SECONDS, WARMUP_S, THREADS = 3, 8.0, 1.0, 2


class Run(NamedTuple):
    """One system, watched for a while."""

    seconds: float
    cpu_s: float
    latencies_s: list[float]
    """Of each row."""


def main() -> None:
    """Measure, print and write a dated record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("split", type=Path)
    given = parser.parse_args()
    repo = root(Path.cwd())
    predictor = Predictor(given.bundle, [CPU], THREADS)
    rows = list(itertools.islice(read_parquet(given.split, predictor.bundle.modalities), 256))
    record = {"conditions": conditions(repo) | {"threads": THREADS, "seconds": SECONDS, "rounds": ROUNDS}}
    record["serving"] = compare(given.bundle, predictor, rows)
    path = Path("benchmarks") / f"{datetime.now(UTC).strftime('%Y-%m-%d-%H%M')}-serving.json"
    write_json(repo / path, record)
    print(f"written: {path}")


def compare(bundle: Path, predictor: Predictor, rows: Sequence[Row]) -> dict[str, Any]:
    """Run every system at every number of clients, in turns, and pool the rounds."""
    bodies = [json.dumps({"rows": [as_json(row)]}).encode() for row in rows]
    pooled: dict[str, list[Run]] = {}
    with running(bundle, SERVERS["one by one"]) as one, running(bundle, SERVERS["batched"]) as batched:
        ports = dict(zip(SERVERS, (one, batched), strict=True))
        for round_, clients in itertools.product(range(ROUNDS), CLIENTS):
            for name, port in ports.items():
                pooled.setdefault(f"{name}, {clients} clients", []).append(load(port, bodies, clients))
            pooled.setdefault(f"plain, batch {clients}", []).append(call(predictor, rows, clients))
            print(f"round {round_ + 1} of {ROUNDS}: {clients} clients", flush=True)
    found = {name: summarize(runs) for name, runs in sorted(pooled.items())}
    for name, numbers in found.items():
        print(f"{name:24}", *(f"{key} {value:.1f}" for key, value in numbers.items()), sep="  ", flush=True)
    return found


def as_json(row: Row) -> dict[str, Any]:
    """Write a row of one picture at most as the server takes it."""
    image = {"image": base64.b64encode(row.image).decode()} if isinstance(row.image, bytes) else {}
    return ({} if row.text is None else {"text": row.text}) | image


def summarize(runs: Sequence[Run]) -> dict[str, float]:
    """Pool runs."""
    latencies_ms = 1000 * np.concatenate([run.latencies_s for run in runs])
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    seconds, cpu_s = sum(run.seconds for run in runs), sum(run.cpu_s for run in runs)
    return {"rows": len(latencies_ms), "per_second": len(latencies_ms) / seconds, "p50_ms": float(p50),
            "p99_ms": float(p99), "cpu_ms_per_row": 1000 * cpu_s / len(latencies_ms)}  # fmt: skip


@contextmanager
def running(bundle: Path, most: int) -> Iterator[int]:
    """Start a server; yield its port."""
    command = [sys.executable, "-m", "fuseline.cli", "serve", str(bundle), "--port", "0", "--provider", CPU,
               "--threads", str(THREADS), "--max-batch", str(most), "--deadline-s", "60"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        told: queue.Queue[str] = queue.Queue()
        threading.Thread(target=relay, args=[server.stdout, told], daemon=True).start()
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", told.get(timeout=120))):
            pass
        try:
            yield int(found[1])
        finally:
            server.terminate()
            server.wait(60)  # before its log is closed


def relay(lines: Iterable[str], to: queue.Queue[str]) -> None:
    """Read a server's log to its end, so that it never waits for a reader."""
    for line in lines:
        to.put(line)


def load(port: int, bodies: Sequence[bytes], clients: int) -> Run:
    """Keep some clients asking for a while."""
    times: list[tuple[float, float]] = []
    stop = time.perf_counter() + WARMUP_S + SECONDS

    def ask(first: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            for body in itertools.islice(itertools.cycle(bodies), first, None):
                if (start := time.perf_counter()) >= stop:
                    return
                connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                assert response.status == 200, response.status
                times.append((time.perf_counter(), time.perf_counter() - start))

    threads = [threading.Thread(target=ask, args=[7 * number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(WARMUP_S)
    begin, cpu_s = time.perf_counter(), cpu_seconds(port)
    time.sleep(SECONDS)
    end, cpu_s = time.perf_counter(), cpu_seconds(port) - cpu_s
    for thread in threads:
        thread.join()
    return Run(end - begin, cpu_s, [took for at, took in times if begin <= at < end])


def cpu_seconds(port: int) -> float:
    """Ask a server how long it has computed."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = re.search(r"^process_cpu_seconds_total (\S+)", text, re.MULTILINE)
    assert found
    return float(found[1])


def call(predictor: Predictor, rows: Sequence[Row], size: int) -> Run:
    """Answer batches by plain calls for a while; each row waits as long as its batch."""
    latencies: list[float] = []
    supply = itertools.cycle(rows)
    begin, cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() < begin + SECONDS:
        start = time.perf_counter()
        list(predictor.answer(itertools.islice(supply, size), size))
        latencies += [time.perf_counter() - start] * size
    return Run(time.perf_counter() - begin, time.process_time() - cpu_s, latencies)


if __name__ == "__main__":
    main()
