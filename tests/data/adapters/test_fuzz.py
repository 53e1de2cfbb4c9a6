"""Whatever a file holds: its rows come, each with its problem, or one error in plain words; and no row is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuseline.data.adapters import FORMATS, detect, read
from fuseline.errors import FuselineError

NAMES = {
    "array": "rows.json", "lines": "rows.jsonl", "delimited": "rows.csv", "parquet": "rows.parquet",
    "conll": "rows.conll",
    "label_studio": "rows.json", "squad": "rows.json",
}  # fmt: skip
KINDS = st.sampled_from(["classification", "multilabel", "ner", "qa", "generation"])

fuzz = settings(
    max_examples=120, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

texts = st.text(st.characters(), max_size=12)  # surrogates and control characters too
numbers = st.integers() | st.integers(-2, 12) | st.floats()
words = st.sampled_from(["a", "", "nan", "train", "tset", "../a", "/etc/passwd", "data:;base64,aGk=", "x.png", "a\0"])
leaves = st.none() | st.booleans() | numbers | texts | words
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
keys = st.sampled_from(
    ["id", "key", "group", "text", "sentence", "text_pair", "image", "file_name", "audio", "label", "target", "split",
     "meta", "site"]
)  # fmt: skip
records = st.dictionaries(keys | texts, values, max_size=6)


def rows_of(path: Path, *args: Any, **options: Any) -> pa.Table | None:
    """Read a batch to its end; None if it is refused. Any other exception fails the test."""
    try:
        tables = list(read(path, *args, **options))
    except FuselineError:
        return None
    for table in tables:
        table.validate(full=True)
        assert table["where"].null_count == 0
    return pa.concat_tables(tables) if tables else pa.table({})


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write the one file of a batch, over the last one."""

    def to(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return to


def test_every_format_is_fuzzed() -> None:
    assert {*NAMES, "image_folder"} == set(FORMATS)


@pytest.mark.parametrize("format_", NAMES)
@fuzz
@given(content=st.binary(max_size=400), kind=KINDS)
def test_any_bytes_are_read_or_refused(put: Callable[..., Path], format_: str, content: bytes, kind: str) -> None:
    rows_of(put(NAMES[format_], content), format_, kind=kind)


@fuzz
@given(content=st.binary(max_size=200), name=st.sampled_from([*NAMES.values(), "rows.txt", "rows.tsv", "metadata.csv"]))
def test_any_bytes_have_a_format_or_none(put: Callable[..., Path], content: bytes, name: str) -> None:
    with suppress(FuselineError):
        assert detect(put(name, content)) in FORMATS


good = {"text": "good", "target": "x"}
odd_lines = st.one_of(
    records.map(lambda record: json.dumps(record).encode()),
    records.map(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(min_size=1, max_size=30).map(lambda line: b"{" + line.replace(b"\n", b"")),
)


@fuzz
@given(lines=st.lists(odd_lines, max_size=6), kind=KINDS)
def test_no_json_line_is_lost(put: Callable[..., Path], lines: list[bytes], kind: str) -> None:
    lines = [json.dumps(good).encode(), *lines, json.dumps(good).encode()]
    table = rows_of(put("rows.jsonl", b"\n".join(lines)), kind=kind)
    assert table is not None
    assert table["where"].to_pylist() == [f"rows.jsonl, line {number}" for number in range(1, len(lines) + 1)]
    ends = table.select(["text", "target", "problem"]).take([0, len(lines) - 1]).to_pylist()
    assert ends == [good | {"problem": None}] * 2


cells = st.text(st.sampled_from('ab,"\r\n\t;é\0 '), max_size=6)


@fuzz
@given(rows=st.lists(st.lists(cells, min_size=2, max_size=2), max_size=6))
def test_csv_comes_back_as_it_was_written(put: Callable[..., Path], rows: list[list[str]]) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [["text", "label"], *rows]]
    table = rows_of(put("rows.csv", "\r\n".join(quoted).encode()))
    assert table is not None
    found = zip(table["text"].to_pylist(), table["target"].to_pylist(), strict=True) if table.num_rows else []
    missing = {None: None, **{cell: None for row in rows for cell in row[1:] if not cell.strip()}}
    assert list(found) == [(text or None, missing.get(label, label)) for text, label in rows]


@fuzz
@given(lines=st.lists(st.text(st.sampled_from('ab,"'), min_size=1, max_size=8), max_size=8))
def test_no_line_of_broken_csv_is_lost(put: Callable[..., Path], lines: list[str]) -> None:
    table = rows_of(put("rows.csv", "\n".join(["text,label", *lines, "last,x"]).encode()))
    assert table is not None
    starts = [int(where.rpartition(" ")[2]) for where in table["where"].to_pylist()]
    spans = [end - start for start, end in zip(starts, [*starts[1:], len(lines) + 3], strict=True)]
    assert starts[0] == 2
    for row, lines_taken in enumerate(spans):  # a row takes one line, or it holds those it takes
        held = [table[name][row].as_py() or "" for name in ("text", "target", "meta")]
        blank = "target is missing" in (table["problem"][row].as_py() or "")  # line ends alone are no target
        assert lines_taken == 1 + "".join(held).replace("\\n", "\n").count("\n") or blank


token_lines = st.text(st.sampled_from("a B-I\tOSE#é \r"), max_size=12)


@fuzz
@given(lines=st.lists(token_lines, max_size=12))
def test_no_sentence_is_lost(put: Callable[..., Path], lines: list[str]) -> None:
    table = rows_of(put("rows.conll", "\n".join(lines).encode()), kind="ner")
    assert table is not None
    blank = [not line.strip(" \t\r") for line in lines]
    sentences = sum(not here and (row == 0 or blank[row - 1]) for row, here in enumerate(blank))
    comments = sum(line.lstrip(" \t\r").startswith("# ") for line in lines)
    assert sentences - comments <= table.num_rows <= sentences
    for row in table.to_pylist():
        spans = json.loads(row["target"] or "[]")
        assert all(0 <= start < end <= len(row["text"]) for start, end, _ in spans)


results = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["choices", "labels", "pairwise", "textarea"]) | values,
        "from_name": st.sampled_from(["q", "r"]) | values,
        "value": st.dictionaries(
            st.sampled_from(["choices", "labels", "selected", "start", "end", "text"]),
            values | st.lists(texts, max_size=2) | st.integers(-1, 6),
        )
        | values,
    },
)
annotations = st.fixed_dictionaries(
    {}, optional={"result": st.lists(results, max_size=2) | values, "was_cancelled": values, "completed_by": values,
                  "ground_truth": values}
)  # fmt: skip
tasks = st.fixed_dictionaries(
    {}, optional={"id": values, "data": records, "annotations": st.lists(annotations | values, max_size=2) | values,
                  "meta": values}
)  # fmt: skip


@fuzz
@given(odd=st.lists(tasks | values, max_size=4), kind=KINDS)
def test_no_task_is_lost(put: Callable[..., Path], odd: list[Any], kind: str) -> None:
    document = [{"data": {"text": "good"}, "annotations": []}, *odd]
    table = rows_of(put("rows.json", json.dumps(document).encode()), "label_studio", kind=kind)
    assert table is not None
    assert table["where"].to_pylist() == [f"rows.json, task {number}" for number in range(1, len(document) + 1)]
    assert all(p or t for p, t in zip(table["problem"].to_pylist(), table["target"].to_pylist(), strict=True))


answers = st.dictionaries(st.sampled_from(["answer_start", "text"]), values)
questions = st.fixed_dictionaries(
    {},
    optional={
        "id": values, "question": values, "is_impossible": values,
        "answers": st.lists(answers | values, max_size=2) | values,
    },
)  # fmt: skip
paragraphs = st.fixed_dictionaries(
    {}, optional={"context": values, "qas": st.lists(questions | values, max_size=3) | values}
)
articles = st.fixed_dictionaries(
    {}, optional={"title": values, "paragraphs": st.lists(paragraphs | values, max_size=2) | values}
)


@fuzz
@given(odd=st.lists(articles | values, max_size=3))
def test_no_question_is_lost(put: Callable[..., Path], odd: list[Any]) -> None:
    table = rows_of(put("rows.json", json.dumps({"data": odd}).encode()), "squad", kind="qa")
    assert table is not None
    assert table.num_rows == sum(map(_questions, odd))


def _questions(article: Any) -> int:
    def inside(value: Any, key: str) -> list[Any]:
        found = value.get(key) if isinstance(value, dict) else None
        return found if isinstance(found, list) else []

    return sum(len(inside(paragraph, "qas")) or 1 for paragraph in inside(article, "paragraphs")) or 1


@fuzz
@given(data=st.data(), kind=KINDS)
def test_a_damaged_parquet_is_read_or_refused(put: Callable[..., Path], data: Any, kind: str) -> None:
    columns = {"text": ["a", "b", None, "a"], "label": ["x", "y", "x", None], "image": [b"1", None, b"2", b"1"]}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression=data.draw(st.sampled_from(["none", "zstd", "snappy"])))
    whole = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    rows_of(put("rows.parquet", bytes(whole)), "parquet", kind=kind)


@fuzz
@given(rows=st.lists(st.tuples(values, values), max_size=5))
def test_no_parquet_row_is_lost(put: Callable[..., Path], rows: list[Any]) -> None:
    columns = [pa.array([json.dumps(row[place]).encode() for row in rows], pa.binary()) for place in (0, 1)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, ["text", "label"]), sink)
    table = rows_of(put("rows.parquet", sink.getvalue().to_pybytes()))
    assert table is not None
    assert table.num_rows == len(rows)


parts = st.sampled_from(["train", "test", "cat", "dog", "a.png", "b.wav", "c.txt", ".d", "metadata.csv", "é"])


@settings(fuzz, max_examples=60)
@given(names=st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), max_size=6), data=st.data())
def test_no_picture_of_a_folder_is_lost(tmp_path_factory: pytest.TempPathFactory, names: list[str], data: Any) -> None:
    root = tmp_path_factory.mktemp("folder")
    for name in names:
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data.draw(st.binary(max_size=20)) if name.endswith("csv") else b"x")
        except OSError:  # a folder is there already, or a file where a folder should be
            continue
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    visible = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    written = sum(path.suffix in (".png", ".wav") for path in visible)
    table = rows_of(root, "image_folder")
    assert table is None or table.num_rows >= written
