"""The review list: what Label Studio exports of it comes back as the same example with another label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fuseline.data.adapters.label_studio import read
from fuseline.data.columns import Columns
from fuseline.data.tabular import Batch
from fuseline.explanation.review import interface, write_review
from fuseline.records import Doubt
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner
from tests.conftest import paint

TASKS: dict[str, tuple[Task, dict[str, Any], str]] = {
    "classification": (Classification(["red", "blue"]), {"label": "blue"}, "blue"),
    "multilabel": (MultiLabel(["red", "blue"]), {"labels": ["red", "blue"]}, '["blue", "red"]'),
    "ner": (
        Ner(["city"], "bio"), {"entities": [{"start": 2, "end": 7, "label": "city", "text": "Paris"}]},
        '[[2, 7, "city"]]',
    ),
}  # fmt: skip


def row(number: int, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(["text", "image", "audio", "split", "source", "meta"])
    return nothing | {"id": f"r{number}", "group": f"g{number}", "text": "😀 Paris & Rome"} | values


def doubt(number: int, answer: dict[str, Any]) -> Doubt:
    return Doubt(id=f"r{number}", split="test", label="red", answer=answer, probability=0.9, margin=-0.8)


def accept_all(folder: Path) -> None:
    """Do as a reviewer does who accepts what was proposed."""
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, start=1):
        task |= {"id": number, "annotations": [{"id": number, "result": task["predictions"][0]["result"]}]}
    (folder.parent / "export.json").write_text(json.dumps(tasks))


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_accepted_comes_back_under_the_old_id_with_the_new_label(kind, tmp_path):
    task, answer, target = TASKS[kind]
    picture = paint(form="JPEG")
    rows = {
        "r0": row(0, image={"bytes": picture, "path": None}, meta='{"shop": "A"}', source="shop", split="test"),
        "r1": row(1),
    }
    write_review(tmp_path / "review", task, [doubt(0, answer), doubt(1, answer)], rows)
    for folder, number in (("text+image", 0), ("text", 1)):
        accept_all(tmp_path / "review" / folder)
        batch = Batch(tmp_path / "review", Columns({}), kind)
        (table,) = read(batch, "export.json")
        (found,) = table.to_pylist()
        assert (found["id"], found["group"], found["text"]) == (f"r{number}", f"g{number}", "😀 Paris & Rome")
        assert found["target"] == target
        if not number:
            assert found["image"] == picture
            assert json.loads(found["meta"]) == {"shop": "A"}
            assert found["split"] == "test"


def test_the_interface_shows_what_tasks_have_and_asks_for_the_task_s_labels():
    root = ET.fromstring(interface(Classification(["a & b", "c"]), ["text", "image"]))
    assert [(child.tag, child.get("value")) for child in root][:2] == [("Text", "$text"), ("Image", "$image")]
    assert [choice.get("value") for choice in root.iter("Choice")] == ["a & b", "c"]
    several = ET.fromstring(interface(MultiLabel(["a"]), ["image"], several=True))
    assert several.find("Image").get("valueList") == "$image"  # type: ignore[union-attr]
    assert several.find("Choices").get("choice") == "multiple"  # type: ignore[union-attr]
    spans = ET.fromstring(interface(Ner(["city"], "bio"), ["text"]))
    assert [child.tag for child in spans] == ["Labels", "Text"]


def test_a_browser_counts_some_characters_twice(tmp_path):
    task, answer, _ = TASKS["ner"]
    write_review(tmp_path / "review", task, [doubt(1, answer)], {"r1": row(1)})
    (told,) = json.loads((tmp_path / "review/text/tasks.json").read_text())
    value = told["predictions"][0]["result"][0]["value"]
    assert (value["start"], value["end"], value["labels"]) == (3, 8, ["city"])
