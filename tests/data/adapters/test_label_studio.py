"""Label Studio's JSON export: what annotators agree on becomes the target."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


def result(kind: str, name: str = "q", **value: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": "text", "type": kind, "value": value}


def choice(*choices: str, name: str = "q") -> dict[str, Any]:
    return result("choices", name, choices=list(choices))


def by(who: Any, *results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 5, "completed_by": who, "result": list(results), **more}


def task(data: dict[str, Any], *annotations: Any, **more: Any) -> dict[str, Any]:
    return {"id": 11, "annotations": list(annotations), "data": data, "predictions": [], **more}


@pytest.fixture
def export(write: Write) -> Callable[..., Path]:
    """Write tasks as an export."""
    return lambda *tasks: write("export.json", json.dumps(tasks, indent=2))


def test_a_choice_is_a_label_and_other_data_is_meta(export: Callable[..., Path], rows_of: Rows) -> None:
    path = export(task({"text": "a rose", "site": "A"}, by(1, choice("red")), meta={"shift": 2}))
    assert rows_of(path) == [
        {
            "id": "11",
            "text": "a rose",
            "target": "red",
            "meta": '{"shift": 2, "site": "A"}',
            "where": "export.json, task 1",
        }
    ]


def test_completions_are_the_old_name_of_annotations(export: Callable[..., Path], rows_of: Rows) -> None:
    (row,) = rows_of(export({"id": 1, "data": {"text": "a"}, "completions": [{"result": [choice("red")]}]}))
    assert row["target"] == "red"


def test_annotators_that_agree_are_one_and_those_that_do_not_are_named(
    export: Callable[..., Path], rows_of: Rows
) -> None:
    ann = {"id": 3, "email": "ann@example.org"}
    agree, disagree, settled = rows_of(export(
        task({"text": "a"}, by(1, choice("red")), by(2, choice("red"))),
        task({"text": "b"}, by(1, choice("red")), by(ann, choice("blue")), by(4, choice("red"))),
        task({"text": "c"}, by(1, choice("red")), by(2, choice("blue"), ground_truth=True)),
    ))  # fmt: skip
    assert agree["target"] == "red"
    assert disagree["problem"] == (
        "annotators disagree: annotator 1, annotator 4 'red' and annotator ann@example.org 'blue'"
    )
    assert disagree["text"] == "b"
    assert "target" not in disagree
    assert settled["target"] == "blue"


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ([], "not annotated"),
        ([by(1, choice("red"), was_cancelled=True)], "not annotated"),
        ([by(1)], "not annotated"),
        ([by(1, choice("red", "blue"))], "is not one choice"),
        ([by(1, choice("red"), choice("big", name="size"))], r"2 answers (q, size); expected one: name its tag"),
        ([by(1, result("rectanglelabels", x=1))], "annotated with rectanglelabels"),
        ([by(1, result("choices"))], "is not one choice"),
        (["odd", {"result": "odd"}], "not annotated"),
    ],
)
def test_a_task_without_one_answer_is_a_problem(
    export: Callable[..., Path], rows_of: Rows, annotations: list[Any], why: str
) -> None:
    bad, good = rows_of(export(task({"text": "a"}, *annotations), task({"text": "b"}, by(1, choice("red")))))
    assert why in bad["problem"]
    assert bad["text"] == "a"
    assert good["target"] == "red"


def test_one_of_several_questions_is_named_by_its_tag(export: Callable[..., Path], rows_of: Rows) -> None:
    path = export(task({"review": "a"}, by(1, choice("red"), choice("big", name="size"))))
    (row,) = rows_of(path, columns={"text": "review", "target": "size"})
    assert (row["text"], row["target"]) == ("a", "big")


def test_unknown_data_is_an_error_that_lists_it(export: Callable[..., Path], rows_of: Rows) -> None:
    with pytest.raises(DataError, match="has the columns .*review"):
        rows_of(export(task({"review": "a"}, by(1, choice("red")))))


def span(start: Any, end: Any, said: str | None, *labels: str) -> dict[str, Any]:
    return result("labels", start=start, end=end, labels=list(labels)) | (
        {"value": {"start": start, "end": end, "labels": list(labels)} | ({} if said is None else {"text": said})}
    )


@pytest.mark.parametrize(
    ("text", "spans", "target"),
    [
        ("Ann met Bob", [span(8, 11, "Bob", "PER"), span(0, 3, "Ann", "PER")], [[0, 3, "PER"], [8, 11, "PER"]]),
        ("Ann met Bob", [span(0, 3, None, "PER")], [[0, 3, "PER"]]),
        ("😀 Ann", [span(3, 6, "Ann", "PER")], [[2, 5, "PER"]]),
        ("😀 Ann", [span(2, 5, "Ann", "PER")], [[2, 5, "PER"]]),
        ("nobody", [], []),
    ],
    ids=["sorted", "without its text", "counted by a browser", "counted in characters", "none"],
)
def test_spans_are_counted_in_characters(
    export: Callable[..., Path], rows_of: Rows, text: str, spans: list[Any], target: list[Any]
) -> None:
    (row,) = rows_of(export(task({"text": text}, by(1, *spans))), kind="ner")
    assert json.loads(row["target"]) == target


@pytest.mark.parametrize(
    ("results", "target"),
    [([choice("red", "blue")], '["blue", "red"]'), ([choice("red")], '["red"]'), ([choice()], "[]"), ([], "[]")],
)
def test_choices_are_a_list_where_there_may_be_several(
    export: Callable[..., Path], rows_of: Rows, results: list[Any], target: str
) -> None:
    (row,) = rows_of(export(task({"text": "a"}, by(1, *results), by(2, *results))), kind="multilabel")
    assert row["target"] == target


def test_choices_of_two_questions_are_no_answer_to_one(export: Callable[..., Path], rows_of: Rows) -> None:
    asked = by(1, choice("red"), choice("blue", name="other"))
    (row,) = rows_of(export(task({"text": "a"}, asked)), kind="multilabel")
    assert "2 answers" in row["problem"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (span(0, 3, "Bob", "PER"), "span 0-3 is not 'Bob' in the text"),
        (span(0, 99, None, "PER"), "span 0-99 is not"),
        (span(-3, 2, None, "PER"), "span -3-2 is not"),
        (span(0.5, 2, None, "PER"), "lacks start or end"),
        (span("a", None, None, "PER"), "lacks start or end"),
        (span(0, 3, "Ann", "PER", "LOC"), "expected one"),
        (span(0, 3, "Ann"), "expected one"),
        (choice("red"), "annotated with choices; ner takes labels"),
    ],
)
def test_a_bad_span_is_its_tasks_problem(export: Callable[..., Path], rows_of: Rows, bad: Any, why: str) -> None:
    (row,) = rows_of(export(task({"text": "Ann met Bob"}, by(1, bad))), kind="ner")
    assert why in row["problem"]
    assert "target" not in row


def test_a_pair_is_two_fields_and_a_side(export: Callable[..., Path], write: Write, rows_of: Rows) -> None:
    write("a.png", b"a")
    write("b.png", b"b")
    pick = result("pairwise", selected="left")
    texts, pictures = rows_of(export(
        task({"text1": "one", "text2": "two"}, by(1, pick)),
        task({"image1": "a.png", "image2": "b.png"}, by(1, pick)),
    ))  # fmt: skip
    assert (texts["text"], texts["text_pair"], texts["target"]) == ("one", "two", "left")
    assert (pictures["image"], pictures["image_pair"]) == (b"a", b"b")


def test_files_are_found_where_the_server_had_them_or_inside_the_task(
    export: Callable[..., Path], write: Write, rows_of: Rows
) -> None:
    write("1/abc rose.png", b"rose")
    write("sounds/sea.wav", b"sea")
    sky = "data:image/png;base64," + base64.b64encode(b"sky").decode()
    found = rows_of(export(
        task({"image": "/data/upload/1/abc%20rose.png"}, by(1, choice("x"))),
        task({"audio": "/data/local-files/?d=sounds%2Fsea.wav"}, by(1, choice("x"))),
        task({"image": sky}, by(1, choice("x"))),
        task({"image": "/data/upload/2/none.png"}, by(1, choice("x"))),
        task({"image": "/etc/secret.png"}, by(1, choice("x"))),
        task({"image": "/data/local-files/?d=../../secret.png"}, by(1, choice("x"))),
        task({"image": "https://example.org/abc rose.png"}, by(1, choice("x"))),
    ))  # fmt: skip
    assert [row.get("image", row.get("audio")) for row in found] == [b"rose", b"sea", b"sky", None, None, None, None]
    assert ["problem" in row for row in found] == [False] * 3 + [True] * 4


def test_what_is_no_task_is_a_problem_and_a_broken_file_is_refused(write: Write, rows_of: Rows) -> None:
    good = json.dumps(task({"text": "a"}, by(1, choice("red"))))
    rows = rows_of(write("export.json", f'[{good}, 7, {{"id": 3}}]'))
    assert [row.get("problem", "")[:17] for row in rows] == ["", "task has no data;", "task has no data;"]
    for broken in (f"[{good}, ", f"[{good}] more", "[" + "[" * 100_000, f"[{good} {good}]"):
        with pytest.raises(DataError, match=r"export\.json"):
            rows_of(write("export.json", broken), "label_studio")
