"""The data contract: every rule has a row that breaks it, and says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from fuseline.data import contract
from fuseline.data.contract import Report, build_rules, check
from fuseline.data.shards import SCHEMA
from fuseline.errors import DataError

LABELS = ["red", "green", "blue"]


def hold(rows: list[dict[str, Any]]) -> Report:
    return check(pa.Table.from_pylist(rows, schema=SCHEMA), LABELS, 20, 16, 64)


@pytest.fixture
def sound(picture: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """Give the maker of a sound row; keywords replace columns, a picture is given as bytes."""

    def make(**changes: Any) -> dict[str, Any]:
        row = {
            "id": "a",
            "group": "g",
            "text": "a rose",
            "image": picture(),
            "target": "red",
            "meta": "{}",
            "source": "s",
        }
        row |= changes
        return row | {"image": None if row["image"] is None else {"bytes": row["image"], "path": None}}

    return make


def test_a_clean_table_passes_every_rule(examples: pa.Table) -> None:
    report = check(examples, LABELS, 200, 16, 64)
    assert report.reasons == {}
    assert len(report.expectations) == len(build_rules(LABELS, 200, 16, 64)) == 12
    assert all(expectation.passed and expectation.failed_rows == 0 for expectation in report.expectations)


SMALL, LARGE, CUT = "small", "large", "cut"
BROKEN = {
    "id is given": ({"id": None}, "id is missing"),
    "group is given": ({"group": None}, "group is missing"),
    "target is given": ({"target": None}, "target is missing"),
    "target is a known label": ({"target": "pink"}, "target 'pink' is not one of the 3 labels of params.yaml"),
    "text or image is given": ({"text": None, "image": None}, "neither text nor image is given"),
    "text has 1 to 20 characters": ({"text": "x" * 21}, "text has 21 characters; expected 1 to 20, or null"),
    "image decodes": ({"image": CUT}, "picture cannot be decoded"),
    "image sides are 16 px or more": ({"image": SMALL}, "picture's shorter side is 15 px; at least 16 are expected"),
    "image sides are 64 px or less": ({"image": LARGE}, "picture's longer side is 65 px; at most 64 are expected"),
    "meta is a JSON object": ({"meta": "[1]"}, "meta is not a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN)
def test_a_row_is_refused_by_the_rule_that(
    rule: str, sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    changes, why = BROKEN[rule]
    pictures = {SMALL: picture(width=15), LARGE: picture(height=65), CUT: picture()[:60]}
    report = hold(
        [sound(), sound(**{"id": "b"} | {name: pictures.get(value, value) for name, value in changes.items()})]
    )
    assert list(report.reasons) == [1]
    assert report.reasons[1][0].startswith(why)
    assert {e.rule: e.failed_rows for e in report.expectations if not e.passed} == {rule: 1}


def test_both_rows_of_a_double_id_are_refused(sound: Callable[..., dict[str, Any]]) -> None:
    report = hold([sound(), sound(id="b"), sound()])
    assert report.reasons == {0: ["id 'a' is not unique"], 2: ["id 'a' is not unique"]}


def test_a_row_is_told_all_its_reasons(sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]) -> None:
    report = hold([sound(text="", target="pink", image=picture(width=15, height=65), meta="{")])
    label, text, short, long, meta = report.reasons[0]
    assert "'pink'" in label
    assert text == "text has 0 characters; expected 1 to 20, or null for no text"
    assert "15 px" in short
    assert "65 px" in long
    assert meta.startswith("meta is not JSON: ")


@pytest.mark.parametrize("text", ["", "   ", "\n\t"], ids=["empty", "spaces", "line and tab"])
def test_a_text_without_a_character_is_refused(text: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert "text has 0 characters" in hold([sound(text=text)]).reasons[0][0]


def test_sizes_and_lengths_on_the_bound_are_accepted(
    sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    bounds = [sound(text="x"), sound(id="b", text="x" * 20), sound(id="c", image=picture(width=16, height=64))]
    assert hold(bounds).reasons == {}


@pytest.mark.parametrize("data", [b"", b"no picture"], ids=["no bytes", "other bytes"])
def test_what_is_no_picture_is_refused(data: bytes, sound: Callable[..., dict[str, Any]]) -> None:
    assert "picture cannot be decoded" in hold([sound(image=data)]).reasons[0][0]


def test_a_picture_that_is_only_a_path_is_refused(sound: Callable[..., dict[str, Any]]) -> None:
    report = hold([sound() | {"image": {"bytes": None, "path": "a.png"}}])
    assert report.reasons == {0: ["picture bytes are missing from the shard"]}


@pytest.mark.parametrize("absent", ["text", "image", "meta", "source"])
def test_what_may_be_missing_may_be_missing_in_every_row(absent: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert hold([sound(**{absent: None}), sound(**{"id": "b", absent: None})]).reasons == {}


@pytest.mark.parametrize("absent", ["text", "image", "meta", "source"])
def test_what_may_be_missing_may_be_missing_in_some_rows(absent: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert hold([sound(), sound(**{"id": "b", absent: None})]).reasons == {}


def test_a_rule_that_cannot_be_computed_is_not_taken_for_one_that_is_met(examples: pa.Table, monkeypatch) -> None:
    whole = contract.describe
    monkeypatch.setattr(contract, "describe", lambda table: whole(table).drop(columns="long_side"))
    with pytest.raises(DataError, match="could not be computed"):
        contract.check(examples, ["red", "green", "blue"], 100, 8, 4096)
