"""Run the application on a port."""

from __future__ import annotations

import signal
from contextlib import suppress
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
    hangs_up = hasattr(signal, "SIGHUP")
    if hangs_up:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # else it would end a server that is still loading
    app = create_app(bundle, settings)
    log_to_stdout()
    if hangs_up:
        signal.signal(signal.SIGHUP, lambda *_: app.state.reloader.ask())
    server = uvicorn.Server(uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=settings.drain_s,
    ))  # fmt: skip
    app.state.stopping = lambda: server.should_exit
    with suppress(KeyboardInterrupt):  # uvicorn raises SIGINT once more when it has stopped
        server.run()
    if not server.started:
        raise SystemExit(3)  # as uvicorn does; the log says why
