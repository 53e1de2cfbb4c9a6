"""The application: routes, and what stands behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

import fuseline
from fuseline.serving.batching import Batcher
from fuseline.serving.loading import describe, key_of, load
from fuseline.serving.logs import Access
from fuseline.serving.meters import Meters
from fuseline.serving.problems import MEDIA, RequestError, tell_fault, tell_http, tell_problem
from fuseline.serving.questions import Questions
from fuseline.serving.reading import announced, read_questions
from fuseline.serving.reloading import Reloader
from fuseline.serving.settings import Settings

FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "audio": {"type": "string", "format": "binary"},
        "boxes": {"type": "string", "description": "JSON"},
        "id": {"type": "string"},
        "rows": {
            "type": "string",
            "description": "In place of the others: the JSON document, where image and audio name parts with files.",
        },
    },
}


def create_app(bundle: Path, settings: Settings | None = None) -> FastAPI:
    """Load a bundle and make the application that answers with it.

    `app.state.reloader.ask()` has it look for another bundle at the same place; once `app.state.stopping()` is true,
    answers tell clients to leave.

    Raises:
        BundleError: the bundle is incomplete, altered, cannot be loaded, or does not answer.
    """
    settings = settings or Settings()
    key = key_of(bundle)
    loaded = load(bundle, settings)
    meters = Meters()
    meters.bundle(loaded)
    batcher = Batcher(loaded, settings, meters)
    reloader = Reloader(bundle, key, batcher, settings, meters)
    meters.watch("fuseline_rows_waiting", "Rows that no batch has taken yet.", lambda: batcher.rows_waiting)
    meters.watch("fuseline_bytes_inside", "Bytes of their bodies, as announced.", lambda: batcher.bytes_inside)
    meters.watch("fuseline_requests_inside", "Requests without an answer yet.", lambda: batcher.inside)

    @asynccontextmanager
    async def work(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        reloader.start()
        yield
        await reloader.stop()
        await batcher.stop()

    handlers: dict[Any, Any] = {RequestError: tell_problem, HTTPException: tell_http, Exception: tell_fault}
    app = FastAPI(title="Fuseline", version=fuseline.__version__, description="Answers rows with a bundle.",
                  lifespan=work, exception_handlers=handlers, redoc_url=None)  # fmt: skip
    app.state.reloader = reloader
    app.state.stopping = lambda: False
    app.add_middleware(Access, meters=meters)
    _add_routes(app, batcher, settings, meters)
    return app


def _add_routes(app: FastAPI, batcher: Batcher, settings: Settings, meters: Meters) -> None:
    problem: dict[str, Any] = {"content": {MEDIA: {}}}
    refusals: dict[int | str, dict[str, Any]] = {
        400: {"description": "Neither JSON nor a form", **problem}, 408: {"description": "Body too slow", **problem},
        413: {"description": "Too large", **problem}, 415: {"description": "Another type of content", **problem},
        422: {"description": "A row is not as expected; which, and what was", **problem},
        503: {"description": "Busy, come again after Retry-After seconds; or stopped, without that header", **problem},
    }  # fmt: skip
    body = {"required": True, "content": {
        "application/json": {"schema": Questions.model_json_schema(ref_template="#/components/schemas/{model}")},
        "multipart/form-data": {"schema": FORM_SCHEMA},
    }}  # fmt: skip
    schema: dict[str, Any] = body["content"]["application/json"]["schema"]  # type: ignore[index]
    schema["properties"]["rows"]["items"] = schema.pop("$defs")["Question"]

    @app.post("/v1/predict", responses=refusals, openapi_extra={"requestBody": body})
    async def predict(request: Request) -> Response:
        """Answer rows, in order."""
        said, most = announced(request), settings.max_body_bytes
        size = most if said is None else min(said, most)
        batcher.enter(size)
        try:
            return await _predict(request, batcher, settings)
        finally:
            batcher.leave(size)

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Describe the bundle in service: labels, inputs, versions, digest."""
        return describe(batcher.loaded)

    @app.get("/health/live", responses={503: {"description": "Rows are never answered again", **problem}})
    async def live() -> dict[str, str]:
        """Say that the process answers; where nothing but a new one will answer rows, say so."""
        batcher.check()
        return {"status": "live"}

    @app.get("/health/ready", responses={503: {"description": "Rows are not answered", **problem}})
    async def ready() -> dict[str, str]:
        """Say whether rows are answered, and by which bundle."""
        batcher.check()
        return {"status": "ready", "digest": batcher.loaded.digest}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Show the numbers for Prometheus."""
        return Response(meters.show(), media_type=CONTENT_TYPE_LATEST)


async def _predict(request: Request, batcher: Batcher, settings: Settings) -> Response:
    asked = None
    try:
        async with asyncio.timeout(settings.deadline_s):
            asked = await read_questions(request, settings)
            request.scope["fuseline.rows"] = len(asked)
            loaded, told = await batcher.answer([one.row for one in asked])
    except TimeoutError:
        if asked is None:
            raise RequestError(
                408, "slow", f"the body did not arrive in {settings.deadline_s:g} s; try again"
            ) from None
        raise RequestError(503, "deadline", f"no answer in {settings.deadline_s:g} s; try again", retry_s=1) from None
    answers = [({} if one.id is None else {"id": one.id}) | answer for one, answer in zip(asked, told, strict=True)]
    model = {"name": loaded.predictor.bundle.name, "digest": loaded.digest}
    return JSONResponse({"model": model, "answers": answers})
