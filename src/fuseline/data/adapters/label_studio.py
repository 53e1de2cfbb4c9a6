"""Label Studio's JSON export: choices, labelled spans and pairwise selections, on text, pictures and sound."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from fuseline.data.adapters.sources import batch_files
from fuseline.data.adapters.squad import read_json
from fuseline.data.drafts import FIELDS, Row, to_tables
from fuseline.data.files import AUDIOS, IMAGES, read_file
from fuseline.errors import DataError

SERVED = ("/data/upload/", "/data/local-files/", "data/upload/", "upload/")
"""Where the server keeps files; an export with its files has them in the batch, by the same names."""


def fits(head: bytes) -> bool:
    """Tell whether the beginning of a file looks like an export."""
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return start.startswith(b"[") and (b'"annotations"' in head or b'"completions"' in head)


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield a row per task of an export."""
    for file in batch_files(path, (".json",)):
        tasks = read_json(file)
        if not isinstance(tasks, list):
            raise DataError(f"{file}: expected a list of tasks, as Label Studio's JSON export has it")
        yield from to_tables(_to_row(task, columns, file, number) for number, task in enumerate(tasks, start=1))


def _to_row(task: Any, columns: Mapping[str, str], file: Path, number: int) -> Row:
    where = f"{file.name}, task {number}"
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        return {"where": where, "problem": "a task is an object with 'data'"}
    name = task.get("id", number)
    row: Row = {"where": where if name == number else f"{where}, id {name}", "id": f"{file.stem}-{name}"}
    problems: list[str] = []
    results = _results(task)
    target = None
    try:
        target = _agreed(results)
    except DataError as error:
        problems.append(str(error))
    row |= _fields(task["data"], columns, file.parent, problems)
    if target is not None:
        row["target"] = target
    if problems:
        row["problem"] = "; ".join(problems)
    return row


def _results(task: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the results of each annotation that counts."""
    annotations = task.get("annotations", task.get("completions"))
    found = []
    for one in annotations if isinstance(annotations, list) else []:
        if isinstance(one, dict) and not one.get("was_cancelled") and isinstance(one.get("result"), list):
            found.append([result for result in one["result"] if isinstance(result, dict)])
    return found


def _agreed(annotations: list[list[dict[str, Any]]]) -> str:
    """Return the target that all annotators gave.

    Raises:
        DataError: there is no annotation, its kind is not known, or annotators disagree.
    """
    if not annotations:
        raise DataError("not annotated")
    targets = sorted({_target(results) for results in annotations})
    if len(targets) > 1:
        raise DataError(f"annotators disagree: {' against '.join(targets)[:300]}")
    return targets[0]


def _target(results: list[dict[str, Any]]) -> str:
    values = [result["value"] for result in results if isinstance(result.get("value"), dict)]
    chosen = [choice for value in values for choice in _list(value.get("choices"))]
    if len(chosen) == 1:
        return str(chosen[0])
    if chosen:
        raise DataError(f"{len(chosen)} choices ({', '.join(map(str, chosen))[:200]}); expected one")
    if selected := [value["selected"] for value in values if value.get("selected") in ("left", "right")]:
        return str(selected[0])
    spans = [_span(value) for value in values if "labels" in value or "hypertextlabels" in value]
    if spans or not results:
        return json.dumps(sorted(spans), ensure_ascii=False)
    raise DataError("its annotation holds no choice, no labelled span and no selection")


def _span(value: dict[str, Any]) -> tuple[int, int, str]:
    labels = _list(value.get("labels") or value.get("hypertextlabels"))
    start, end = value.get("start"), value.get("end")
    if len(labels) != 1 or not isinstance(start, int) or not isinstance(end, int):
        raise DataError(f"expected a span with start, end and one label, found {json.dumps(value)[:120]}")
    return start, end, str(labels[0])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _fields(data: dict[str, Any], columns: Mapping[str, str], folder: Path, problems: list[str]) -> Row:
    """Sort a task's data into fields; two of one kind are a pair."""
    named = {name: field for field, name in columns.items()}
    row: Row = {}
    meta: dict[str, Any] = {}
    for name, value in data.items():
        field = named.get(name) or (name if name in FIELDS else _kind(value, name))
        if field in ("text", "image", "audio") and field in row:
            field = f"{field}_pair"
        if field is None or field in row or value is None:
            meta[name] = value
            continue
        try:
            row[field] = _file(value, folder) if field.startswith(("image", "audio")) else str(value)
        except DataError as error:
            problems.append(f"{name}: {error}")
    return row | {"meta": meta}


def _kind(value: Any, name: str) -> str | None:
    """Guess what a datum is: a file by its ending or data URI, else a text if it is called one."""
    if not isinstance(value, str):
        return None
    if value.startswith("data:"):
        return "image" if value.startswith("data:image/") else "audio" if value.startswith("data:audio/") else None
    ending = Path(urlsplit(value).path).suffix.lower() if len(value) < 2000 and "\n" not in value else ""
    if ending in IMAGES:
        return "image"
    if ending in AUDIOS:
        return "audio"
    return (
        "text"
        if name.lower().startswith(("text", "sentence", "prompt", "question", "answer", "option", "item"))
        else None
    )


def _file(value: Any, folder: Path) -> bytes:
    if not isinstance(value, str):
        raise DataError(f"expected a path or a data: URI, found {type(value).__name__}")
    if value.startswith("data:"):
        head, _, body = value.partition(",")
        if not head.endswith(";base64"):
            raise DataError("a data: URI must be base64")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"not base64: {error}") from error
    parts = urlsplit(value)
    if parts.scheme or parts.netloc:
        raise DataError(f"{value[:120]!r} lies outside the batch; export the files with the tasks")
    path = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
    for prefix in SERVED:
        if path.startswith(prefix):
            name = path.removeprefix(prefix)
            options = [path.lstrip("/"), name, f"images/{Path(name).name}", f"upload/{name}", Path(name).name]
            found = next((option for option in options if (folder / option).is_file()), name)
            return read_file(folder, found, folder)
    return read_file(folder, path, folder)
