"""Label Studio's JSON export: tasks with annotations, for choices, labelled spans of text, and pairs."""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuseline.data.adapters.array import blocks
from fuseline.data.adapters.json_stream import iter_items
from fuseline.data.cells import to_json
from fuseline.data.columns import Columns
from fuseline.data.compressed import open_rows
from fuseline.data.drafts import join
from fuseline.data.files import MEDIA_SUFFIXES, clip, open_file, suffix_of
from fuseline.data.tabular import Batch, Reader, Record, Unread
from fuseline.errors import DataError

KINDS = {"choices", "labels", "pairwise"}

Result = Mapping[str, Any]


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one export: a task is an example.

    Columns name keys of the tasks' data; `target` names the control tag (`from_name`) that asks the question, where
    there are several.
    """
    question = batch.columns.named.get("target")
    columns = Columns({key: column for key, column in batch.columns.named.items() if key != "target"})
    reader = Reader(Batch(batch.root, columns, batch.kind), name, split, needs=())
    with open_rows(batch.root, name) as file:
        for start, tasks in blocks(iter_items(file, name)):
            wheres = [f"{name}, task {start + number}" for number in range(1, len(tasks) + 1)]
            block = reader.block([_record(task, batch.root, reader.name) for task in tasks], wheres)
            targets: list[str | None] = []
            for row, task in enumerate(tasks):
                text = block.fields["text"][row] if "text" in block.fields else None
                target, problem = _target(task, text, batch.kind, question)
                targets.append(target)
                if not block.unread[row]:
                    block.problems[row] = join(block.problems[row], problem)
            yield from reader.tables(block, targets)


def _record(task: Any, root: Path, name: str) -> Record:
    """Return a task's data as a record, with its id, and paths as they are in the batch."""
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(data, Mapping):
        return Unread("task has no data; expected Label Studio's JSON export")
    base = posixpath.dirname(name)
    found = {key: _local(value, root, base) for key, value in data.items()}
    return {"id": task.get("id"), "meta": task.get("meta") or None} | found


def _local(value: Any, root: Path, base: str) -> Any:
    """Return where a path on Label Studio's server is in the batch; as it is where it is no such path."""
    if not isinstance(value, str) or suffix_of(value[:4096]) not in MEDIA_SUFFIXES:
        return value
    if value.startswith("/data/local-files/?d="):
        return urllib.parse.unquote(value.partition("=")[2])
    if not value.startswith("/data/upload/"):
        return value
    parts = urllib.parse.unquote(value).strip("/").split("/")
    for start in range(len(parts)):  # data/upload/1/cat.png, upload/1/cat.png, 1/cat.png, cat.png
        name = "/".join(parts[start:])
        if _is_there(root, posixpath.join(base, name)):
            return name
    return "/".join(parts)


def _is_there(root: Path, name: str) -> bool:
    try:
        open_file(root, name).close()
    except DataError:
        return False
    return True


def _target(task: Any, text: Any, kind: str, question: str | None) -> tuple[str | None, str | None]:
    """Return what the annotators say, or why they say nothing."""
    given = _annotations(task)
    answers: dict[str, list[str]] = {}
    for number, annotation in enumerate(given, start=1):
        try:
            answer = _answer(annotation, text, kind, question)
        except DataError as error:
            return None, str(error)
        answers.setdefault(answer, []).append(_annotator(annotation, number))
    if not answers:
        return None, "not annotated"
    if len(answers) > 1:
        said = " and ".join(f"{', '.join(who)} {clip(answer, 60)!r}" for answer, who in answers.items())
        return None, f"annotators disagree: {said}"
    return next(iter(answers)), None


def _annotations(task: Any) -> list[Result]:
    """Return the annotations that count: the ground truth if one is marked so, or else all that were not cancelled."""
    given = task.get("annotations", task.get("completions")) if isinstance(task, Mapping) else None
    valid = [
        annotation
        for annotation in (given if isinstance(given, list) else [])
        if isinstance(annotation, Mapping) and not annotation.get("was_cancelled") and not annotation.get("skipped")
    ]
    return [annotation for annotation in valid if annotation.get("ground_truth") is True] or valid


def _annotator(annotation: Result, number: int) -> str:
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return f"annotator {who}" if isinstance(who, int | str) else f"annotation {number}"


def _answer(annotation: Result, text: Any, kind: str, question: str | None) -> str:
    results = _results(annotation, kind, question)
    if kind == "ner":
        return to_json(sorted({_span(result, text) for result in results}))
    if kind == "multilabel" and len(results) < 2:
        return to_json(sorted({choice for result in results for choice in _choices(result)}))
    if not results:
        raise DataError("not annotated")
    if len(results) > 1:
        names = ", ".join(sorted({str(result.get("from_name")) for result in results}))
        raise DataError(f"{len(results)} answers ({clip(names)}); expected one: name its tag, as target=NAME")
    value = _value(results[0])
    selected = value.get("choices", value.get("selected"))
    if isinstance(selected, list) and len(selected) == 1:
        selected = selected[0]
    if not isinstance(selected, str) or not selected:
        raise DataError(f"answer {clip(repr(selected), 60)} is not one choice")
    return selected


def _choices(result: Result) -> list[str]:
    choices = _value(result).get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"answer {clip(repr(choices), 60)} is no list of choices")
    return choices


def _results(annotation: Result, kind: str, question: str | None) -> list[Result]:
    """Return the results that answer the question.

    Raises:
        DataError: there are only others.
    """
    given = annotation.get("result")
    results = [result for result in (given if isinstance(given, list) else []) if isinstance(result, Mapping)]
    asked = [result for result in results if question is None or result.get("from_name") == question]
    wanted = {"labels"} if kind == "ner" else KINDS - {"labels"}
    found = [result for result in asked if str(result.get("type")) in wanted]
    if asked and not found:
        types = ", ".join(sorted({str(result.get("type")) for result in asked}))
        raise DataError(f"annotated with {clip(types)}; {kind} takes {' or '.join(sorted(wanted))}")
    return found


def _value(result: Result) -> Result:
    value = result.get("value")
    return value if isinstance(value, Mapping) else {}


def _span(result: Result, text: Any) -> tuple[int, int, str]:
    """Return a span in characters.

    Label Studio runs in a browser, where a character beyond the basic plane counts twice: which way a span was
    counted is told by the text that comes with it.
    """
    value = _value(result)
    start, end, labels = value.get("start"), value.get("end"), value.get("labels")
    if type(start) is not int or type(end) is not int or not isinstance(text, str):
        raise DataError("span lacks start or end, or there is no text for it")
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise DataError(f"span {start}-{end} has the labels {clip(repr(labels), 60)}; expected one")
    said = value.get("text")
    if 0 <= start < end <= len(text) and said in (None, text[start:end]):
        return start, end, labels[0]
    first, last = _characters(text, start), _characters(text, end)
    if first is None or last is None or first >= last or said not in (None, text[first:last]):
        raise DataError(f"span {start}-{end} is not {clip(str(said), 60)!r} in the text")
    return first, last, labels[0]


def _characters(text: str, units: int) -> int | None:
    """Turn a place counted in UTF-16 units into one in characters; None where it is inside one, or outside."""
    data = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= units <= len(data) // 2:
        return None
    try:
        return len(data[: 2 * units].decode("utf-16-le"))
    except UnicodeDecodeError:
        return None
