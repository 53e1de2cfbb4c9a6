"""Requests to rows: JSON and forms with files, in one schema."""

from __future__ import annotations

import binascii
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json

from fuseline.inputs.boxes import find_error
from fuseline.inputs.image import FORMATS, pixels_of
from fuseline.runtime.predictor import Row
from fuseline.serving.problems import RequestError
from fuseline.serving.settings import Settings

FORM = 'the parts text, image, audio and boxes of one row, or a part rows, {"rows": [...]}, whose files are other parts'
EXAMPLE = '{"rows": [{"text": "…", "image": "<base64 of a file>"}]}'
MARKS = (b",", b"[", b"{")
"""What stands before each value of JSON, a key's apart."""
BOMB = 1 << 40
"""Pixels of a picture that Pillow does not open for their number, whatever that is."""
Fetch = Callable[[str], bytes]
"""Returns the bytes that a string stands for. Raises ValueError, saying what was expected."""


ONE = Field(fail_fast=True)
"""Of a list: the first error is told, and the others, of which there may be millions, are never made."""


class Question(BaseModel):
    """A row. At least one of what the model takes must be given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int | None = Field(None, description="Comes back with the answer.")
    text: str | None = None
    image: str | Annotated[list[str], ONE] | None = Field(
        None,
        description="A picture file: base64 in JSON, a part's name in a form; a list where rows have several.",
    )
    audio: str | None = Field(None, description="A sound file, likewise.")
    boxes: Annotated[list[Annotated[list[int], ONE]], ONE] = Field(
        [], description="Where the text stands in the picture: [start, end, left, top, right, bottom], thousandths."
    )


class Questions(BaseModel):
    """What is asked at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: list[Question] = Field(min_length=1)


@cache
def questions_of(max_rows: int) -> type[Questions]:
    """Make the schema that ends at so many rows: no more are built."""
    rows = Annotated[list[Question], Field(min_length=1, max_length=max_rows, fail_fast=True)]
    return create_model("Questions", __base__=Questions, rows=(rows, ...))


KEYS = ", ".join(Question.model_fields)


@dataclass(frozen=True)
class Asked:
    """A row to answer, and the id that it was given."""

    id: str | int | None
    row: Row


def parse_json(body: bytes, settings: Settings) -> list[Asked]:
    """Read the rows of a JSON body.

    Raises:
        RequestError: naming the row, and what was expected.
    """
    return _ask(_validate(body, settings), _from_base64, settings)


def parse_form(fields: dict[str, str], files: dict[str, list[bytes]], settings: Settings) -> list[Asked]:
    """Read the rows of a form.

    Args:
        fields: parts without a file name.
        files: parts with one; several of one name are several pictures.

    Raises:
        RequestError: as above.
    """
    if "rows" in fields:
        return _ask(_validate(fields["rows"].encode(), settings), lambda name: _from_part(name, files), settings)
    if unknown := (set(fields) | set(files)) - {"id", "text", "image", "audio", "boxes"}:
        raise RequestError(422, "form", f"unknown part {sorted(unknown)[0]!r}; expected {FORM}")
    if misplaced := set(fields) & {"image", "audio"}:
        raise RequestError(422, "form", f"the part {min(misplaced)!r} is no file; send it with a file name")
    named = {name: [f"{name} {number}" for number in range(len(files[name]))] for name in files}
    parts = {f"{name} {number}": [data] for name in files for number, data in enumerate(files[name])}
    document = dict(fields) | {name: names if len(names) > 1 else names[0] for name, names in named.items()}
    boxes = {"boxes": _boxes(fields["boxes"].encode(), settings)} if "boxes" in fields else {}
    return _ask(_check(lambda: Questions.model_validate({"rows": [document | boxes]})),
                lambda name: _from_part(name, parts), settings)  # fmt: skip


def _validate(body: bytes, settings: Settings) -> Questions:
    _refuse_swarm(body, settings.max_values)
    return _check(lambda: questions_of(settings.max_rows).model_validate_json(body))


def _boxes(text: bytes, settings: Settings) -> Any:
    _refuse_swarm(text, settings.max_values)
    try:
        return from_json(text)
    except ValueError as error:
        raise RequestError(400, "json", f"the part 'boxes' is not JSON: {error}") from None


def _refuse_swarm(body: bytes, most: int) -> None:
    """Refuse many small values before the parser makes a tree of them; commas and brackets in texts do not count."""
    if sum(map(body.count, MARKS)) <= most:
        return
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    quotes = plain.count(b'"')
    if quotes > 2 * most or sum(sum(map(part.count, MARKS)) for part in plain.split(b'"')[::2]) > most:
        raise RequestError(
            413, "values", f"more than {most:,} numbers, texts and lists; expected fewer: send several requests"
        )


def _check(validate: Callable[[], Questions]) -> Questions:
    """Turn the first of pydantic's errors into a problem."""
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "too_long":
        most = first["ctx"]["max_length"]
        raise RequestError(413, "rows", f"more than {most} rows; send them in several requests") from None
    if first["type"] == "json_invalid":
        raise RequestError(400, "json", f"not JSON: {first['msg'].removeprefix('Invalid JSON: ')}") from None
    place = first["loc"]
    row = place[1] + 1 if len(place) > 1 and isinstance(place[1], int) else None
    where = ": ".join(([f"row {row}"] if row else ["the body"]) + [str(part) for part in place[2 if row else 0 :][:1]])
    why = f"unknown key; expected {KEYS}" if first["type"] == "extra_forbidden" else first["msg"]
    raise RequestError(422, "row" if row else "body", f"{where}: {why}; a body is {EXAMPLE}", row) from None


def _ask(questions: Questions, fetch: Fetch, settings: Settings) -> list[Asked]:
    return [Asked(one.id, _row(one, number, fetch, settings)) for number, one in enumerate(questions.rows, start=1)]


def _row(one: Question, number: int, fetch: Fetch, settings: Settings) -> Row:
    def refuse(why: str, status: int = 422) -> RequestError:
        return RequestError(status, "row", f"row {number}: {why}", number)

    if one.text is not None and len(one.text) > settings.max_chars:
        raise refuse(f"text of {len(one.text):,} characters; expected at most {settings.max_chars:,}", 413)
    if isinstance(one.image, list) and len(one.image) > settings.max_pictures:
        raise refuse(f"{len(one.image):,} pictures; expected at most {settings.max_pictures}", 413)
    if one.boxes and (why := find_error(one.boxes, one.text)):
        raise refuse(why)
    try:
        image = None if one.image is None else [fetch(part) for part in _listed(one.image)]
        audio = None if one.audio is None else fetch(one.audio)
    except ValueError as error:
        raise refuse(str(error)) from None
    if image and (pixels := sum(map(count_pixels, image))) > settings.max_pixels:
        found = f"{pixels:,} pixels" if pixels < BOMB else "more pixels than any camera has"
        raise refuse(f"pictures of {found}; expected at most {settings.max_pixels:,}: shrink them", 413)
    pictures = image[0] if image and len(image) == 1 else image
    return Row(one.text, pictures, audio, one.boxes, where=f"row {number}")


def _listed(given: str | list[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)  # base64.b64decode makes a copy of the text first
    except (binascii.Error, ValueError):
        raise ValueError("image or audio is no base64; expected the bytes of a file, standard alphabet") from None


def _from_part(name: str, files: dict[str, list[bytes]]) -> bytes:
    if len(files.get(name, ())) != 1:
        raise ValueError(f"no file part, or more than one, is named {name!r}; there are {', '.join(files) or 'none'}")
    return files[name][0]


def count_pixels(data: bytes) -> int:
    """Return how many pixels a picture says it has, 0 where it is none: that is told when it is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                return pixels_of(picture)
    except Image.DecompressionBombError:
        return BOMB
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError):
        return 0
