"""One thread owns the graph; requests that wait for it go in together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from fuseline.runtime.predictor import Row
from fuseline.serving.answering import Told, answer_requests
from fuseline.serving.loading import Loaded
from fuseline.serving.meters import Meters
from fuseline.serving.problems import RequestError
from fuseline.serving.settings import Settings

log = logging.getLogger("fuseline.serving")


@dataclass(eq=False)
class Job:
    """A request that waits: its future gets the bundle that answered, and the answers."""

    rows: Sequence[Row]
    future: asyncio.Future[tuple[Loaded, list[Told]]]


def _tell(task: asyncio.Task[None]) -> None:
    """Log why nothing is answered any more."""
    if not task.cancelled():
        log.critical("rows are not answered any more", exc_info=task.exception())


class Batcher:
    """Answers requests in the order in which they came.

    A batch begins when the thread is free. Whoever is alone is answered at once; where several are inside, it waits a
    moment: for those on their way, and for the clients of the last batch, who come back together. Without that, clients
    that ask again and again fall into two groups which take turns, in batches of half the size.

    Args:
        loaded: the bundle; setting the attribute swaps it between two batches.
    """

    def __init__(self, loaded: Loaded, settings: Settings, meters: Meters) -> None:
        self.loaded = loaded
        self.inside = 0
        """Requests that were let in and have no answer yet."""
        self.bytes_inside = 0
        """Of their bodies, as announced."""
        self._settings, self._meters = settings, meters
        self._waiting: deque[Job] = deque()
        self._came = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "graph")
        self._row_s = 0.01
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise a RequestError if no request will be answered any more."""
        if self._task is None or self._task.done():
            raise RequestError(503, "stopped", "rows are not answered; start the server again")

    @property
    def rows_waiting(self) -> int:
        """Count the rows that no batch has taken yet."""
        return sum(len(job.rows) for job in self._waiting)

    def enter(self, size: int) -> None:
        """Let a request in, of a body of so many bytes; alone it is let in whatever its size.

        Raises:
            RequestError: there are too many inside already, their bodies are too large together, or nobody answers.
        """
        self.check()
        full = self.bytes_inside + size > self._settings.max_inside_bytes and self.inside > 0
        if full or self.inside >= self._settings.max_requests:
            after = max(1, math.ceil(self.rows_waiting * self._row_s))
            found = f"{self.inside} requests of {self.bytes_inside:,} bytes are inside"
            raise RequestError(503, "busy", f"{found}; try again in {after} s", retry_s=after)
        self.inside += 1
        self.bytes_inside += size

    def leave(self, size: int) -> None:
        """Let a request out."""
        self.inside -= 1
        self.bytes_inside -= size
        self._came.set()  # nobody waits for it any more

    async def answer(self, rows: Sequence[Row]) -> tuple[Loaded, list[Told]]:
        """Answer the rows of one request.

        Raises:
            RequestError: a row cannot be read, or has nothing that the bundle takes; which is named.
        """
        job = Job(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._came.set()
        return await job.future

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_tell)

    async def stop(self) -> None:
        """End when the running batch has."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self) -> None:
        while True:
            await self._came.wait()
            await self._gather()
            if jobs := self._take():
                await self._answer(jobs)
            if not self._waiting:
                self._came.clear()

    async def _gather(self) -> None:
        """Wait for others, as long as settings say."""
        until = time.monotonic() + self._settings.max_wait_ms / 1000
        while self.inside > 1 and self.rows_waiting < self._settings.max_batch:
            self._came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), until - time.monotonic())
            if time.monotonic() >= until:
                return

    def _take(self) -> list[Job]:
        """Take jobs for one batch, at least one; those that nobody waits for any more are dropped."""
        jobs: list[Job] = []
        rows = 0
        while self._waiting and (not jobs or rows + len(self._waiting[0].rows) <= self._settings.max_batch):
            job = self._waiting.popleft()
            if not job.future.done():
                jobs.append(job)
                rows += len(job.rows)
        return jobs

    async def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer jobs together; where that fails as a whole, each by itself, so that one does not spoil the others."""
        loaded, start = self.loaded, time.monotonic()
        rows = [job.rows for job in jobs]
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, answer_requests, loaded.predictor, rows, self._settings.max_batch
        )
        await asyncio.wait({work})
        if (error := work.exception()) is not None and len(jobs) > 1:
            for job in jobs:
                await self._answer([job])
            return
        count, took = sum(map(len, rows)), time.monotonic() - start
        self._meters.batch(count, took)
        self._row_s += 0.1 * (took / count - self._row_s)
        for job, outcome in zip(jobs, [error] if error is not None else work.result(), strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result((loaded, outcome))
