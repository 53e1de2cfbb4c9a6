"""Requests to rows: JSON and forms with files, in one schema."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuseline.inputs.boxes import find_error
from fuseline.inputs.image import FORMATS
from fuseline.runtime.predictor import Row
from fuseline.serving.problems import RequestError
from fuseline.serving.settings import Settings

FORM = 'the parts text, image, audio and boxes of one row, or a part rows, {"rows": [...]}, whose files are other parts'
EXAMPLE = '{"rows": [{"text": "…", "image": "<base64 of a file>"}]}'
BOMB = 1 << 40
"""Pixels of a picture that Pillow does not open for their number, whatever that is."""
Fetch = Callable[[str], bytes]
"""Returns the bytes that a string stands for. Raises ValueError, saying what was expected."""


class Question(BaseModel):
    """A row. At least one of what the model takes must be given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int | None = Field(None, description="Comes back with the answer.")
    text: str | None = None
    image: str | list[str] | None = Field(
        None,
        description="A picture file: base64 in JSON, a part's name in a form; a list where rows have several.",
    )
    audio: str | None = Field(None, description="A sound file, likewise.")
    boxes: list[list[int]] = Field(
        [], description="Where the text stands in the picture: [start, end, left, top, right, bottom], thousandths."
    )


class Questions(BaseModel):
    """What is asked at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: list[Question] = Field(min_length=1)


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
    return _ask(_validate(body), _from_base64, settings)


def parse_form(fields: dict[str, str], files: dict[str, list[bytes]], settings: Settings) -> list[Asked]:
    """Read the rows of a form.

    Args:
        fields: parts without a file name.
        files: parts with one; several of one name are several pictures.

    Raises:
        RequestError: as above.
    """
    if "rows" in fields:
        return _ask(_validate(fields["rows"].encode()), lambda name: _from_part(name, files), settings)
    if unknown := (set(fields) | set(files)) - {"id", "text", "image", "audio", "boxes"}:
        raise RequestError(422, "form", f"unknown part {sorted(unknown)[0]!r}; expected {FORM}")
    if misplaced := set(fields) & {"image", "audio"}:
        raise RequestError(422, "form", f"the part {min(misplaced)!r} is no file; send it with a file name")
    named = {name: [f"{name} {number}" for number in range(len(files[name]))] for name in files}
    parts = {f"{name} {number}": [data] for name in files for number, data in enumerate(files[name])}
    document = dict(fields) | {name: names if len(names) > 1 else names[0] for name, names in named.items()}
    boxes = {"boxes": _validate_boxes(fields["boxes"])} if "boxes" in fields else {}
    return _ask(_check(lambda: Questions.model_validate({"rows": [document | boxes]})),
                lambda name: _from_part(name, parts), settings)  # fmt: skip


def _validate(body: bytes) -> Questions:
    return _check(lambda: Questions.model_validate_json(body))


def _validate_boxes(text: str) -> Any:
    return _check(lambda: Questions.model_validate_json(f'{{"rows": [{{"boxes": {text}}}]}}')).rows[0].boxes


def _check(validate: Callable[[], Questions]) -> Questions:
    """Turn the first of pydantic's errors into a problem."""
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise RequestError(400, "json", f"not JSON: {first['msg'].removeprefix('Invalid JSON: ')}") from None
    place = first["loc"]
    row = place[1] + 1 if len(place) > 1 and isinstance(place[1], int) else None
    where = ": ".join(([f"row {row}"] if row else ["the body"]) + [str(part) for part in place[2 if row else 0 :][:1]])
    why = f"unknown key; expected {KEYS}" if first["type"] == "extra_forbidden" else first["msg"]
    raise RequestError(422, "row" if row else "body", f"{where}: {why}; a body is {EXAMPLE}", row) from None


def _ask(questions: Questions, fetch: Fetch, settings: Settings) -> list[Asked]:
    count = len(questions.rows)
    if count > settings.max_rows:
        raise RequestError(
            413, "rows", f"{count} rows; expected at most {settings.max_rows}: send them in several requests"
        )
    return [Asked(one.id, _row(one, number, fetch, settings)) for number, one in enumerate(questions.rows, start=1)]


def _row(one: Question, number: int, fetch: Fetch, settings: Settings) -> Row:
    def refuse(why: str, status: int = 422) -> RequestError:
        return RequestError(status, "row", f"row {number}: {why}", number)

    if one.text is not None and len(one.text) > settings.max_chars:
        raise refuse(f"text of {len(one.text):,} characters; expected at most {settings.max_chars:,}", 413)
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
        return base64.b64decode(text, validate=True)
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
                return picture.width * picture.height
    except Image.DecompressionBombError:
        return BOMB
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError):
        return 0
