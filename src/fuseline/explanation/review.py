"""A list of examples to look at again, as Label Studio imports it; what it exports then, `fuseline ingest` takes.

There is a folder for each pattern of availability: one labelling interface shows what all of its tasks have. A task
holds the example's id, so that the corrected one takes the place of the old.
"""

from __future__ import annotations

import io
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from PIL import Image

from fuseline.inputs.image import pictures_of
from fuseline.records import Doubt
from fuseline.tasks.base import Task, Unit

TASKS = "tasks.json"
INTERFACE = "labels.xml"
SERVED = "/data/local-files/?d="
"""Where Label Studio serves the files of the folder that its LOCAL_FILES_DOCUMENT_ROOT names."""
SHOWN = {"text": "Text", "image": "Image", "audio": "Audio"}
"""Label Studio's tag for each modality, in the order in which they are shown."""
QUESTION = "target"

Rows = Mapping[str, Mapping[str, Any]]


def write_review(folder: Path, task: Task, doubts: Sequence[Doubt], rows: Rows) -> None:
    """Write tasks, the labelling interface, and the pictures and recordings that tasks show.

    Args:
        folder: is made.
        doubts: what is to be looked at, in the order in which it is to be.
        rows: the examples, as prepared, by id.
    """
    folder.mkdir(parents=True)
    by_pattern: dict[str, list[Doubt]] = {}
    for doubt in doubts:
        has = [name for name in SHOWN if rows[doubt.id].get(name) is not None]
        by_pattern.setdefault("+".join(has), []).append(doubt)
    for pattern, chosen in by_pattern.items():
        place, modalities = folder / pattern, pattern.split("+")
        place.mkdir()
        tasks = [_task(place, number, task, doubt, rows[doubt.id]) for number, doubt in enumerate(chosen, start=1)]
        text = json.dumps(tasks, ensure_ascii=False, indent=2)
        (place / TASKS).write_text(text + "\n", encoding="utf-8")
        several = any(isinstance(each["data"].get("image"), list) for each in tasks)
        (place / INTERFACE).write_text(interface(task, modalities, several), encoding="utf-8")


def _task(folder: Path, number: int, task: Task, doubt: Doubt, row: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: row[key] for key in ("id", "group", "text", "split") if row.get(key) is not None}
    pictures = [
        _save(folder, f"{number:04d}-{place}.{_suffix(content)}", content)
        for place, content in enumerate(pictures_of(row) or [], start=1)
    ]
    if pictures:
        data["image"] = pictures[0] if len(pictures) == 1 else pictures
    if row.get("audio") is not None:
        content = row["audio"]["bytes"]
        data["audio"] = _save(folder, f"{number:04d}.{'flac' if content[:4] == b'fLaC' else 'wav'}", content)
    shown = next(name for name in SHOWN if data.get(name) is not None)
    said = {
        "model_version": f"labelled {doubt.label}", "score": doubt.probability,
        "result": _results(task.unit, doubt.answer, shown, row.get("text") or ""),
    }  # fmt: skip
    meta = json.loads(row["meta"]) if row.get("meta") else {}
    return {"data": data, "meta": meta, "predictions": [said]}


def _save(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return SERVED + urllib.parse.quote(f"{folder.name}/{name}", safe="/")


def _suffix(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as picture:
        form = (picture.format or "png").lower()
    return {"jpeg": "jpg", "tiff": "tif"}.get(form, form)


def _results(unit: Unit, answer: Mapping[str, Any], shown: str, text: str) -> list[dict[str, Any]]:
    """Put what the ensemble answers as Label Studio has it."""

    def result(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {"from_name": QUESTION, "to_name": shown, "type": kind, "value": dict(value)}

    if unit != "word":
        return [result("choices", {"choices": answer["labels"] if unit == "label" else [answer["label"]]})]
    return [
        result("labels", {
            "start": _browser(text, entity["start"]), "end": _browser(text, entity["end"]), "text": entity["text"],
            "labels": [entity["label"]],
        })
        for entity in answer["entities"]
    ]  # fmt: skip


def _browser(text: str, at: int) -> int:
    """Count as a browser does: characters beyond the basic plane are two."""
    return len(text[:at].encode("utf-16-le")) // 2


def interface(task: Task, modalities: Sequence[str], several: bool = False) -> str:
    """Return Label Studio's labelling interface for tasks that have these modalities.

    Args:
        several: whether there are lists of pictures.
    """
    shown = [name for name in SHOWN if name in modalities]
    view = ET.Element("View")
    control = "Labels" if task.unit == "word" else "Choices"
    if task.unit == "word":
        _ask(view, task, control, shown[0])
    for name in shown:
        key = "valueList" if several and name == "image" else "value"
        ET.SubElement(view, SHOWN[name], {"name": name, key: f"${name}"})
    if task.unit != "word":
        _ask(view, task, control, shown[0])
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def _ask(view: ET.Element, task: Task, control: str, shown: str) -> None:
    options = {"choice": "multiple" if task.unit == "label" else "single"} if control == "Choices" else {}
    question = ET.SubElement(view, control, {"name": QUESTION, "toName": shown, **options})
    for label in task.labels:
        ET.SubElement(question, control[:-1], {"value": label})
