"""Tokens get the box of the stretch that they stand in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from fuseline.inputs.boxes import NOWHERE, Placed, place_tokens
from fuseline.inputs.text import TextReader

FIRST, SECOND = [0, 8, 10, 20, 30, 40], [9, 13, 50, 60, 70, 80]


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([(0, 3), (4, 8)], [FIRST, FIRST]),
        ([(0, 0), (0, 8), (9, 13), (0, 0)], [None, FIRST, SECOND, None]),
        ([(8, 9), (9, 13), (14, 20)], [None, SECOND, None]),
        ([(0, 3), (3, 10), (8, 10)], [FIRST, FIRST, SECOND]),
        ([], []),
    ],
    ids=["words of one stretch", "beside special tokens", "between and behind stretches", "across two", "nothing"],
)
def test_a_token_is_where_the_first_stretch_is_that_it_has_a_part_in(
    offsets: list[tuple[int, int]], expected: list[list[int] | None]
) -> None:
    for boxes in ([FIRST, SECOND], [SECOND, FIRST]):
        found = [list(place) for place in place_tokens(boxes, offsets)]
        assert found == [list(NOWHERE) if box is None else box[2:] for box in expected]


def test_texts_without_boxes_have_none(tokenizer: Tokenizer) -> None:
    reader = TextReader(tokenizer, layout=True)
    boxes = reader.collate(["the rose", None, Placed("the roses", [FIRST])])["boxes"]
    inside = [10, 20, 30, 40]
    assert boxes.dtype == np.int64
    assert boxes.tolist() == [[[-1] * 4] * 5, [[-1] * 4] * 5, [[-1] * 4, inside, inside, [-1] * 4, [-1] * 4]]


def test_a_reader_is_read_back_with_layout_and_without(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for layout in (True, False):
        (tmp_path / str(layout)).mkdir()
        TextReader(tokenizer, layout=layout).save(tmp_path / str(layout))
        reader = TextReader.open(tmp_path / str(layout))
        assert ("boxes" in reader.collate(["the rose"])) == layout
        assert reader.describe().endswith(" layout") == layout
