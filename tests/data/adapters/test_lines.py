"""JSON Lines: a bad line costs only itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data import files, tabular
from fuseline.data.adapters import lines
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


def test_fields_are_known_by_their_usual_names_and_the_rest_is_meta(write: Write, rows_of: Rows) -> None:
    path = write(
        "rows.jsonl", '{"key": 7, "sentence": "a rose", "label": "red", "split": "dev", "site": "A", "n": 2}\n'
    )
    assert rows_of(path) == [
        {"id": "7", "text": "a rose", "target": "red", "split": "val", "meta": '{"site": "A", "n": 2}',
         "where": "rows.jsonl, line 1"}
    ]  # fmt: skip


def test_columns_can_be_named(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"question": "why?", "answer": "so", "text": "aside"}\n')
    (row,) = rows_of(path, columns={"text": "question", "target": "answer"})
    assert (row["text"], row["target"], row["meta"]) == ("why?", "so", '{"text": "aside"}')


def test_a_row_takes_the_first_of_two_names_that_it_has(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"text": "a", "label": "x"}\n{"sentence": "b", "target": "y"}\n'
                 '{"text": "c", "sentence": "d", "label": "z"}\n')  # fmt: skip
    rows = rows_of(path)
    assert [(row["text"], row["target"]) for row in rows] == [("a", "x"), ("b", "y"), ("c", "z")]
    assert rows[2]["meta"] == '{"sentence": "d"}'


@pytest.mark.parametrize(
    ("columns", "named"),
    [({"text": "qestion"}, "question"), ({"label": "answer"}, "target"), ({}, "target=COLUMN")],
    ids=["a slip in a column", "a slip in a field", "no target"],
)
def test_a_column_that_is_not_there_stops_the_batch_and_the_error_lists_what_is(
    write: Write, rows_of: Rows, columns: dict[str, str], named: str
) -> None:
    path = write("rows.jsonl", '{"question": "why?", "answer": "so"}\n')
    with pytest.raises(DataError, match=named):
        rows_of(path, columns=columns)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"text": "a", ', "not JSON"),
        (b'["text"]', "line is a list; expected an object"),
        (b'{"text": "\xff\xfe", "label": "x"}', "text is not UTF-8"),
        (rb'{"text": "\ud83d", "label": "x"}', "text is not UTF-8"),
        (b'{"text": {"a": 1}, "label": "x"}', "text is an object; expected a string"),
        (b'{"text": "a", "label": NaN}', "target is missing"),
        (b'{"text": "a", "label": "nan"}', "target is missing"),
        (b'{"text": "a", "label": " "}', "target is missing"),
        (b'{"text": "a", "label": null}', "target is missing"),
        (b'{"text": "a"}', "target is missing"),
        (b'{"text": "a", "label": "x", "split": "tset"}', "split 'tset' is not train, val or test"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_a_bad_line_costs_only_itself(write: Write, rows_of: Rows, line: bytes, why: str) -> None:
    good = b'{"text": "good", "label": "x"}\n'
    first, bad, last = rows_of(write("rows.jsonl", good + line + b"\n" + good))
    assert (first["text"], last["text"], last["where"]) == ("good", "good", "rows.jsonl, line 3")
    assert bad["where"] == "rows.jsonl, line 2"
    assert why in bad["problem"]
    assert "problem" not in first | last


def test_what_a_bad_line_holds_is_kept(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("rows.jsonl", "no JSON at all\n"))
    assert json.loads(row["meta"]) == {"line": "no JSON at all"}


def test_lines_that_only_together_are_json_do_not_pass(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"text": "a", "label": ["x"\n"y"]}\n{"text": "b", "label": "z"}, {}\n')
    assert [row["problem"][:8] for row in rows_of(path)] == ["not JSON"] * 3


def test_a_giant_line_is_left_unread(write: Write, rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.iter_lines, "__defaults__", (1000,))
    good = '{"text": "good", "label": "x"}\n'
    rows = rows_of(write("rows.jsonl", good + '{"text": "' + "a" * 5000 + '"}\n' + good))
    assert [row.get("problem", "")[:19] for row in rows] == ["", "line is longer than", ""]
    assert rows[1].keys() == {"where", "problem"}


def test_blank_lines_and_a_byte_order_mark_are_no_rows(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", b'\xef\xbb\xbf{"text": "a", "label": "x"}\r\n\r\n  \n{"text": "b", "label": "y"}')
    assert [row["where"] for row in rows_of(path)] == ["rows.jsonl, line 1", "rows.jsonl, line 4"]


def test_utf16_is_refused_in_plain_words(write: Write, rows_of: Rows) -> None:
    with pytest.raises(DataError, match="UTF-16.*save it as UTF-8"):
        rows_of(write("rows.jsonl", '{"text": "a"}'.encode("utf-16")))


def test_values_that_are_no_strings_are_written_out(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"id": 12345678901234567890, "text": ["one", "two"], "label": true, "x": 1e999}\n')
    (row,) = rows_of(path)
    assert (row["id"], row["text"], row["target"]) == ("12345678901234567890", "one two", "true")
    assert row["meta"] == '{"x": null}'


def test_a_time_stays_as_it_was_written(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("rows.jsonl", '{"text": "2020-01-01 00:00:00", "label": "x", "at": "2020-01-01"}\n'))
    assert (row["text"], row["meta"]) == ("2020-01-01 00:00:00", '{"at": "2020-01-01"}')


@pytest.mark.parametrize(
    ("kind", "target", "meta"),
    [("generation", "a", '{"references": ["b"]}'), ("classification", '["a", "b"]', None)],
)
def test_several_references_are_one_target_and_meta(
    write: Write, rows_of: Rows, kind: str, target: str, meta: str | None
) -> None:
    (row,) = rows_of(write("rows.jsonl", '{"text": "t", "target": ["a", "b"]}\n'), kind=kind)
    assert (row["target"], row.get("meta")) == (target, meta)


def test_spans_are_a_target_in_json(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"text": "t", "label": [[0, 1, "PER"]]}\n{"text": "t", "label": []}\n')
    assert [row["target"] for row in rows_of(path, kind="ner")] == ['[[0, 1, "PER"]]', "[]"]


def test_labels_are_a_list_of_any_length_where_there_may_be_several(write: Write, rows_of: Rows) -> None:
    lines = [{"text": "t", "label": given} for given in (["a", "b"], ["a"], [], '["b"]')]
    path = write("rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert [row["target"] for row in rows_of(path, kind="multilabel")] == ['["a", "b"]', '["a"]', "[]", '["b"]']


def test_a_meta_that_is_an_object_takes_the_rest_in(write: Write, rows_of: Rows) -> None:
    path = write("rows.jsonl", '{"text": "t", "label": "x", "meta": {"a": 1}, "b": 2}\n'
                 '{"text": "t", "label": "x", "meta": "{\\"a\\": 1}", "b": 2}\n'
                 '{"text": "t", "label": "x", "meta": "web", "b": 2}\n')  # fmt: skip
    assert [json.loads(row["meta"]) for row in rows_of(path)] == [
        {"a": 1, "b": 2}, {"a": 1, "b": 2}, {"meta": "web", "b": 2},
    ]  # fmt: skip


def test_files_are_read_from_the_rows_folder(write: Write, rows_of: Rows, batch: Path) -> None:
    write("part/pictures/rose.png", b"rose")
    write("part/sea.wav", b"sea")
    data = base64.b64encode(b"sky").decode()
    write("part/rows.jsonl", '{"image": "pictures/rose.png", "audio_path": "sea.wav", "label": "red"}\n'
          f'{{"file_name": "sea.wav", "image": "data:image/png;base64,{data}", "label": "blue"}}\n'
          '{"image": "pictures\\\\rose.png", "label": "red"}\n')  # fmt: skip
    first, second, third = rows_of(batch)
    assert (first["image"], first["audio"]) == (b"rose", b"sea")
    assert (second["image"], second["audio"]) == (b"sky", b"sea")
    assert third["image"] == b"rose"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.png", "leads out of the batch"),
        ("a/../../secret.png", "leads out of the batch"),
        ("/etc/passwd", "is an absolute path"),
        ("C:\\\\secret.png", "is an absolute path"),
        ("https://example.org/a.png", "is a URL"),
        ("file:/etc/passwd", "is a URL"),
        (".git/config", "is hidden"),
        ("none.png", "is not found in the batch"),
        ("", None),
        ("a\\u0000.png", "NUL"),
        ("\\ud800.png", "no file's name has"),
        ("x" * 300 + ".png", "image"),
        ("data:image/png;base64,@@@", "is not base64"),
    ],
)
def test_a_row_reads_nothing_outside_the_batch(write: Write, rows_of: Rows, name: str, why: str | None) -> None:
    write("../secret.png", b"secret")
    path = write("rows.jsonl", f'{{"image": "{name}", "label": "red"}}\n')
    (row,) = rows_of(path)
    assert "image" not in row
    assert row["target"] == "red"
    assert why is None or why in row["problem"]


def test_tables_stay_small(write: Write, rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "TABLE_BYTES", 1000)
    monkeypatch.setattr(lines, "BATCH_ROWS", 50)
    write("a.png", b"x" * 300)
    path = write("rows.jsonl", '{"image": "a.png", "label": "x"}\n' * 60)
    sizes = [table.num_rows for table in lines.read(tabular.Batch(path.parent), path.name)]
    assert max(sizes) == 4
    assert sum(sizes) == 60


def test_paths_start_from_the_folder_that_is_named(write: Write, rows_of: Rows, batch: Path) -> None:
    rows = write("rows.jsonl", '{"image": "a/1.png", "label": "x"}\n{"image": "../rows.jsonl", "label": "x"}\n')
    write("../media/a/1.png", b"picture")
    first, second = rows_of(rows, files=batch.parent / "media")
    assert first["image"] == b"picture"
    assert "leads out of the batch" in second["problem"]


def test_a_folder_of_files_that_is_not_there_or_of_no_use_is_refused(write: Write, rows_of: Rows, batch: Path) -> None:
    with pytest.raises(DataError, match="nothing: not found, or no folder"):
        rows_of(write("rows.jsonl", '{"image": "1.png", "label": "x"}'), files=batch / "nothing")
    with pytest.raises(DataError, match="conll gives no paths"):
        rows_of(write("a.conll", "a O\n"), files=batch)
