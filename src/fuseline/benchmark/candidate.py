"""One side of a benchmark: a bundle that is loaded, and what times its calls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuseline.benchmark.conditions import memory_bytes
from fuseline.benchmark.running import Spent, Timer, open_timer, provider_options, run_plainly
from fuseline.config import Benchmark as Conditions
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.session import assigned, is_on_gpu, providers_used


class Call(NamedTuple):
    """One call's times: as the caller waits, of the graph, of copies to and from the device, and of all processors."""

    whole_ms: float
    graph_ms: float
    copy_ms: float | None
    cpu_ms: float


class Candidate:
    """What is timed.

    Args:
        predictor: what reads the rows.
        timer: what answers them.
        plain: the same, as it is served: what answers the first row, and rows that arrive.
        load_ms: what it took to have the two; None of a peer, whose model somebody else loaded.
        first: a row to answer at once.
        memory: what the process held before.
    """

    def __init__(
        self, predictor: Predictor, timer: Timer, plain: Timer, load_ms: float | None, first: Row, memory: int
    ) -> None:
        self.predictor, self.timer, self.plain, self.load_ms = predictor, timer, plain, load_ms
        self.first_answer_ms = self._time([first], plain).whole_ms
        self.memory_bytes = max(0, memory_bytes() - memory)

    @classmethod
    def open(cls, folder: Path, conditions: Conditions, first: Row) -> Candidate:
        """Load a bundle under these conditions.

        Raises:
            BundleError: it is incomplete, altered, or cannot be loaded.
        """
        memory, start = memory_bytes(), time.perf_counter()
        options = provider_options(conditions.cuda)
        predictor = Predictor(folder, conditions.providers, conditions.threads, options)
        load_ms = (time.perf_counter() - start) * 1000
        session = predictor.session
        on_gpu = is_on_gpu(providers_used(session))
        timer, plain = open_timer(session, conditions.cuda, on_gpu), run_plainly(session, on_gpu)
        return cls(predictor, timer, plain, load_ms, first, memory)

    def peer(self, timer: Timer, first: Row) -> Candidate:
        """Return a peer that is given what this one's graph is given."""
        return Candidate(self.predictor, timer, timer, None, first, memory_bytes())

    def call(self, rows: Sequence[Row]) -> Call:
        """Answer rows in one batch; a call is what a caller waits for: decoding, tokenizing and the graph.

        One that had to set up memory for new shapes is made once more.
        """
        found = self._time(rows, self.timer)
        return self._time(rows, self.timer) if self.timer.spent.set_up else found

    def serve(self, rows: Sequence[Row]) -> None:
        """Answer rows in one batch once, whatever it takes, as they come."""
        self._time(rows, self.plain)

    def _time(self, rows: Sequence[Row], timer: Timer) -> Call:
        spent = timer.spent = Spent()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in self.predictor.answer(rows, len(rows), timer):
            pass
        whole_ms, cpu_ms = (time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000
        return Call(whole_ms, spent.graph_ms, spent.copy_ms, cpu_ms)

    @property
    def is_peer(self) -> bool:
        """Whether this is something else than a bundle."""
        return self.load_ms is None

    @property
    def nodes(self) -> dict[str, Counter[str]]:
        """Kinds of the graph's nodes by the provider that runs them; none of a peer."""
        return {} if self.is_peer else assigned(self.predictor.session)

    @property
    def model_bytes(self) -> int | None:
        """Size of the graph's files, None of a peer."""
        files = self.predictor.bundle.files
        graph = sum(file.bytes for name, file in files.items() if name.startswith("model.onnx"))
        return None if self.is_peer else graph
