"""Bodies, read no further than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from fuseline.serving.problems import RequestError
from fuseline.serving.questions import FORM, Asked, parse_form, parse_json
from fuseline.serving.settings import Settings

THREAD_BYTES = 100_000
"""Larger bodies are parsed beside the event loop, so that they do not hold up the others."""


async def read_questions(request: Request, settings: Settings) -> list[Asked]:
    """Read what is asked.

    Raises:
        RequestError: it is too large, of another type, or not as the schema says.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "application/json":
        body = b"".join([chunk async for chunk in limited(request, settings.max_body_bytes)])
        if len(body) < THREAD_BYTES:
            return parse_json(body, settings)
        return await asyncio.to_thread(parse_json, body, settings)
    if media == "multipart/form-data":
        fields, files = await _read_form(request, settings)
        return await asyncio.to_thread(parse_form, fields, files, settings)
    raise RequestError(
        415,
        "media",
        f"content type {media or 'missing'}; expected application/json, or multipart/form-data with {FORM}",
    )


async def limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the body's chunks.

    Raises:
        RequestError: as soon as there are more bytes than `most`, or so many are announced.
    """
    taken = 0
    said = announced(request)
    if said is not None and said > most:
        raise too_large(most)
    try:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > most:
                raise too_large(most)
            yield chunk
    except ClientDisconnect:
        raise RequestError(400, "gone", "the client left before its body was there") from None


def announced(request: Request) -> int | None:
    """Return how many bytes the body will have, None where it is not said.

    A chunked body has as many as come, whatever length is announced beside it: RFC 9112, 6.3.
    """
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() and "transfer-encoding" not in request.headers else None


def too_large(most: int) -> RequestError:
    """Refuse a body."""
    return RequestError(413, "size", f"the body is larger than {most:,} bytes: send fewer rows, or smaller files")


async def _read_form(request: Request, settings: Settings) -> tuple[dict[str, str], dict[str, list[bytes]]]:
    most = settings.max_body_bytes
    parser = MultiPartParser(request.headers, limited(request, most), max_part_size=most)
    parser.spool_max_size = most + 1  # nothing is written to disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, "form", f"no form: {error.message} expected {FORM}") from None
    fields: dict[str, str] = {}
    files: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(await value.read())
        elif name in fields:
            raise RequestError(422, "form", f"the part {name!r} is there twice; expected {FORM}")
        else:
            fields[name] = value
    await form.close()
    return fields, files
