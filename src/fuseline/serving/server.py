"""Run the application on a port."""

from __future__ import annotations

import signal
from pathlib import Path

import uvicorn

from fuseline.serving.app import create_app
from fuseline.serving.logs import log_to_stdout
from fuseline.serving.settings import Settings


def serve(bundle: Path, host: str, port: int, settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT, then let those inside finish; SIGHUP loads the bundle at its place again.

    Raises:
        BundleError: the bundle cannot be served.
    """
    app = create_app(bundle, settings)
    log_to_stdout()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: app.state.reloader.ask())
    uvicorn.run(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=settings.drain_s,
    )  # fmt: skip
