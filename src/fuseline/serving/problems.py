"""What a client is told that gets no answer: problem+json, RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fuseline.errors import FuselineError

MEDIA = "application/problem+json"
ID_HEADER = "x-request-id"


class RequestError(FuselineError):
    """One reason why a request is not answered.

    Args:
        status: of HTTP.
        kind: a word that programs can go by; the type is `urn:fuseline:KIND`.
        detail: what was found, what was expected, what to do.
        row: which row, counted from 1.
        retry_s: when it may be worth to try again.
    """

    def __init__(self, status: int, kind: str, detail: str, row: int | None = None, retry_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.row, self.retry_s = status, kind, row, retry_s


def tell(problem: RequestError) -> JSONResponse:
    """Make the response."""
    title = HTTPStatus(problem.status).phrase
    body: dict[str, Any] = {
        "type": f"urn:fuseline:{problem.kind}", "title": title, "status": problem.status, "detail": str(problem),
    }  # fmt: skip
    if problem.row is not None:
        body["row"] = problem.row
    headers = {} if problem.retry_s is None else {"Retry-After": str(problem.retry_s)}
    return JSONResponse(body, problem.status, headers, MEDIA)


async def tell_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer what our code refused."""
    assert isinstance(error, RequestError)
    return tell(error)


async def tell_http(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refused: an unknown path, a method that is none."""
    assert isinstance(error, HTTPException)
    told = tell(
        RequestError(error.status_code, "http", f"{request.method} {request.url.path}: {error.detail}; see /docs")
    )
    told.headers.update(error.headers or {})
    return told


async def tell_fault(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of ours: what it is stands in the server's log, under the request's id."""
    number = request.scope["fuseline.id"]
    error.add_note(f"request {number}")  # uvicorn logs it, and knows no ids
    told = tell(RequestError(500, "fault", f"the server failed; its log says why, under the request's id {number}"))
    told.headers[ID_HEADER] = number  # Access is passed by: Starlette answers faults around it
    return told
