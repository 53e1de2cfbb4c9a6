"""The next bundle is verified, loaded and tried beside the present one, and takes its place between two batches."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from fuseline.serving.batching import Batcher
from fuseline.serving.loading import Key, key_of, load
from fuseline.serving.meters import Meters
from fuseline.serving.settings import Settings

log = logging.getLogger("fuseline.serving")


class Reloader:
    """Looks at the bundle's place again and again, and whenever it is asked to.

    A bundle that is refused leaves the old one in service, and is not tried again until another stands there or
    somebody asks. While both are loaded, memory holds two.
    """

    def __init__(self, folder: Path, key: Key | None, batcher: Batcher, settings: Settings, meters: Meters) -> None:
        self._folder, self._key, self._batcher = folder, key, batcher
        self._settings, self._meters = settings, meters
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def ask(self) -> None:
        """Load what stands there now, changed or not; for signal handlers and other threads."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._settings.reload_s or None)
            key = key_of(self._folder)
            if self._asked.is_set() or (key is not None and key != self._key):
                self._asked.clear()
                await self._load(key)

    async def _load(self, key: Key | None) -> None:
        work = asyncio.ensure_future(asyncio.to_thread(load, self._folder, self._settings))
        await asyncio.wait({work})
        self._key = key
        if (error := work.exception()) is not None:
            self._meters.reload("refused")
            log.error("bundle refused; the old one stays", extra={"fields": {"why": str(error)}})
            return
        self._batcher.loaded = loaded = work.result()
        self._meters.reload("swapped")
        self._meters.bundle(loaded)
        log.info("bundle swapped", extra={"fields": {"digest": loaded.digest, "name": loaded.predictor.bundle.name}})
