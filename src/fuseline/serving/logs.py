"""One JSON object a line, on stdout: what happened, and each request without what it held."""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuseline.serving.meters import Meters
from fuseline.serving.problems import ID_HEADER

access = logging.getLogger("fuseline.access")


class JsonLines(logging.Formatter):
    """Writes a record; `extra={"fields": {...}}` adds keys, an exception its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        told |= getattr(record, "fields", {})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def log_to_stdout() -> None:
    """Send all loggers there."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class Access:
    """Gives each request an id, and logs and counts it once it is answered."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, number = time.perf_counter(), 500, uuid.uuid4().hex
        scope["fuseline.id"] = number

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (ID_HEADER.encode(), number.encode())]
                if scope["app"].state.stopping():  # or the client's next request would meet a closed connection
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            self._tell(scope, status, time.perf_counter() - start)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # the pattern: paths that nobody serves are one
        self._meters.request(route, status, seconds)
        fields = {
            "method": scope["method"], "path": scope["path"], "status": status, "ms": round(1000 * seconds, 2),
            "rows": scope.get("fuseline.rows"), "client": (scope.get("client") or [None])[0],
            "id": scope["fuseline.id"],
        }  # fmt: skip
        access.info("request", extra={"fields": fields})
