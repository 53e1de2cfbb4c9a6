"""What files' names tell, where the user says how to read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.adapters.names import Names
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("{target}_{group}_{take}.wav", "7_jackson_32.wav",
         {"target": "7", "group": "jackson", "meta": '{"take": "32"}'}),
        ("{label}/{}.jpg", "pug/4.jpg", {"target": "pug"}),
        ("{target}_{}.jpg", "a/b/pug_004.jpg", {"target": "pug"}),
        ("{group}/{target}/{id}.png", "x/ann/cat/1.png", {"group": "ann", "target": "cat", "id": "1"}),
        ("{split}/{target}/{}.png", "dev/cat/1.png", {"split": "val", "target": "cat"}),
        ("{target}.(1).png", "cat.(1).png", {"target": "cat"}),
    ],
)  # fmt: skip
def test_a_pattern_gives_fields_and_meta(pattern: str, name: str, found: dict[str, str]) -> None:
    assert Names.parse(pattern).read(name) == found


@pytest.mark.parametrize("name", ["7.wav", "7_jackson.wav", "7_jackson_32.mp3", "7_jackson_32.wav/x"])
def test_a_name_that_does_not_fit_has_a_problem(name: str) -> None:
    assert "does not fit the pattern" in Names.parse("{target}_{group}_{}.wav").read(name)["problem"]


def test_a_split_by_another_name_is_a_problem() -> None:
    found = Names.parse("{split}/{target}_{}.png").read("extra/cat_1.png")
    assert (found["split"], found["problem"]) == (None, "split 'extra' is not train, val or test")


@pytest.mark.parametrize(
    "pattern", ["*.wav", "{}.wav", "{target", "{a b}.wav", "{target}{target}", "{label}/{target}", "{{target}}.wav"]
)
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match="pattern"):
        Names.parse(pattern)


def test_files_are_read_and_what_is_no_file_of_theirs_left_out(write: Write, rows_of: Rows, batch: Path) -> None:
    write("test/7_ann_0.wav", b"sound")
    write("test/cover.png", b"picture")
    write("README.md", "about")
    first, second = rows_of(batch, names_give="{target}_{group}_{}.wav")
    assert first == {"where": "test/7_ann_0.wav", "target": "7", "group": "ann", "split": "test", "audio": b"sound"}
    assert (second["where"], second["image"]) == ("test/cover.png", b"picture")
    assert "does not fit" in second["problem"]


@pytest.mark.parametrize(
    ("name", "content"), [("metadata.csv", "file_name,label\na.png,x\n"), ("rows.jsonl", '{"text": "a", "label": "b"}')]
)
def test_where_rows_tell_names_are_not_asked(write: Write, rows_of: Rows, batch: Path, name: str, content: str) -> None:
    write("a.png", b"x")
    write(name, content)
    with pytest.raises(DataError, match="a pattern of names was given"):
        rows_of(batch, names_give="{target}.png")
