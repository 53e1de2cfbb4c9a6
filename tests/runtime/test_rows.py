"""Rows from files: a bad line is named by file and number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fuseline.errors import DataError
from fuseline.inputs.image import FORMATS, decode_image
from fuseline.runtime.bundle import read_card
from fuseline.runtime.predictor import Row
from fuseline.runtime.rows import PICTURES, Prepared, read_jsonl, read_parquet, read_rows


@pytest.fixture
def write(tmp_path: Path, picture: Callable[..., bytes]) -> Callable[..., Path]:
    """Give the writer of a JSON Lines file with a picture beside it."""
    (tmp_path / "a.png").write_bytes(picture())

    def to_file(*lines: str) -> Path:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    return to_file


def test_lines_come_as_they_stand_and_as_rows(write: Callable[..., Path], picture: Callable[..., bytes]) -> None:
    file = write('{"text": "größer", "id": 7}', '{"image": "a.png"}', '{"text": "b", "image": "a.png"}')
    documents, rows = zip(*read_jsonl(file), strict=True)
    assert documents == ({"text": "größer", "id": 7}, {"image": "a.png"}, {"text": "b", "image": "a.png"})
    assert rows == (Row("größer"), Row(None, picture()), Row("b", picture()))


def test_a_picture_may_stand_at_an_absolute_path(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(f'{{"image": "{tmp_path / "a.png"}"}}')
    assert next(iter(read_jsonl(file)))[1].image is not None


def test_null_is_as_good_as_left_out(write: Callable[..., Path]) -> None:
    assert [row for _, row in read_jsonl(write('{"text": "b", "image": null}'))] == [Row("b")]


def test_a_picture_may_be_a_list_of_them(write: Callable[..., Path], picture: Callable[..., bytes]) -> None:
    rows = [row for _, row in read_jsonl(write('{"image": ["a.png", "a.png"]}', '{"text": "b", "image": []}'))]
    assert rows == [Row(None, [picture(), picture()]), Row("b")]


def test_boxes_come_along(write: Callable[..., Path]) -> None:
    lines = '{"text": "b", "boxes": [[0, 1, 2, 3, 4, 5]]}', '{"text": "b", "boxes": []}', '{"text": "b", "boxes": null}'
    rows = [row for _, row in read_jsonl(write(*lines))]
    assert rows == [Row("b", boxes=[[0, 1, 2, 3, 4, 5]]), Row("b"), Row("b")]


def test_empty_lines_pass_but_count(write: Callable[..., Path]) -> None:
    file = write("", '{"text": "b"}', "   ", "{}")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 4: none of text, image, audio is given"):
        list(read_jsonl(file))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("plain words", "not JSON"),
        (
            '{"text": "b", "boxes": [[0, 2, 2, 3, 4, 5]]}',
            "boxes, entry 1 of 1: start 0 and end 2 are no stretch of a text",
        ),
        ('{"image": "a.png", "boxes": [[0, 2, 2, 3, 4, 5]]}', "boxes is given without a text"),
        ('{"text": "b", "boxes": "left"}', "boxes is no list"),
        ("[1, 2]", r"expected an object such as .* found \[1, 2\]"),
        ('"text"', "expected an object"),
        ("{}", "none of text, image, audio is given"),
        ('{"Text": "a"}', "none of text, image, audio is given"),
        ('{"text": null}', "none of text, image, audio is given"),
        ('{"text": ""}', "text must be a non-empty string or left out, found ''"),
        ('{"text": "  "}', "text must be a non-empty string"),
        ('{"text": 5}', "text must be a non-empty string or left out, found 5"),
        ('{"text": "a", "image": 5}', "image must be a non-empty path, .* or left out, found '5' of int"),
        ('{"text": "a", "image": ["a.png", 5]}', "image must be a non-empty path, .* or left out, found '5' of int"),
        ('{"text": ["a"]}', "text must be a non-empty string or left out"),
        ('{"image": []}', "none of text, image, audio is given"),
        ('{"image": ["a.png", "nowhere.png"]}', r"nowhere\.png cannot be read"),
        ('{"image": "nowhere.png"}', r"nowhere\.png cannot be read \(No such file or directory\)"),
        ('{"image": "."}', r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line: str, words: str, write: Callable[..., Path]) -> None:
    file = write('{"text": "sound"}', line, '{"text": "sound"}')
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: .*{words}"):
        list(read_jsonl(file))


def test_rows_before_a_bad_line_are_given(write: Callable[..., Path]) -> None:
    rows = read_jsonl(write('{"text": "sound"}', "{"))
    assert next(rows)[1] == Row("sound")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read \(No such file or directory\)"):
        list(read_jsonl(tmp_path / "nowhere.jsonl"))


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl: not UTF-8"):
        list(read_jsonl(tmp_path / "rows.jsonl"))


def test_the_pictures_of_a_folder_are_all_that_can_be_read_and_no_others(tmp_path: Path) -> None:
    Image.init()
    for suffix, form in Image.EXTENSION.items():
        if form in (*FORMATS, "AVIF", "ICO"):
            image = Image.new("F" if suffix == ".pfm" else "1" if suffix == ".pbm" else "L", (16, 16))
            image.save(tmp_path / f"a{suffix}", form)
    rows = {Path(document["id"]).suffix: row for document, row in read_rows(tmp_path)}
    assert {suffix for suffix, form in Image.EXTENSION.items() if form in FORMATS} - {".pfm"} == PICTURES == set(rows)
    assert {decode_image(row.image).shape for row in rows.values() if isinstance(row.image, bytes)} == {(16, 16, 3)}


def test_a_folder_without_rows_is_told_what_could_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(b"")
    with pytest.raises(DataError, match=r"no rows here; expected files with \.jsonl, .*, or with \.apng, .*\.webp$"):
        list(read_rows(tmp_path))


def test_a_prepared_split_gives_its_rows_in_order(prepared: Path) -> None:
    rows = list(read_parquet(prepared / "test", ["text", "image"]))
    assert len(rows) == 9
    assert all(row.text is not None or row.image is not None for row in rows)
    assert rows[0].text == "the cherry and brick"
    assert rows[1].text is None
    assert rows[0].image is not None
    assert rows[0].image.startswith(b"\x89PNG")


@pytest.mark.parametrize("wanted", [["text"], ["image"], ["text", "image"]], ids="+".join)
def test_prepared_rows_are_counted_without_reading_them_and_can_be_gone_through_again(
    wanted: list[str], prepared: Path
) -> None:
    rows = Prepared(prepared / "train", wanted, wanted, several=False)
    first, second = list(rows), list(rows)
    assert first == second
    assert len(rows) == len(first) == {"text": 21, "image": 20, "text+image": 24}["+".join(wanted)]


def test_what_a_bundle_can_answer_is_told_by_its_card(bundle: Path, prepared: Path) -> None:
    rows = Prepared.of(prepared / "test", read_card(bundle / "bundle.json"))
    assert list(rows) == list(read_parquet(prepared / "test", ["text", "image"]))
