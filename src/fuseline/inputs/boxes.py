"""Where stretches of a text stand in its picture: what a row says of it, and what its tokens get of that.

Shape letters: B batch, S tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseline.inputs.base import Input

BOXES = "boxes"
"""Column of an example, and input of a graph."""
INPUT = Input(
    BOXES, "int64", ("batch", "tokens", 4),
    "left, top, right, bottom of each token in thousandths of the picture's sides; -1 where it has no place",
    traced=500,
)  # fmt: skip
SIDE = 1000
"""Length of the picture's sides, as LayoutLM counts."""
NOWHERE = (-1, -1, -1, -1)
KEYS = ("start", "end", "left", "top", "right", "bottom")
_FORM = f"[{', '.join(KEYS)}]"

Stretch = list[int]
"""KEYS: characters of the text, the end not among them, and thousandths of the picture's sides from its upper left."""


class Placed(NamedTuple):
    """A text, and where its stretches stand in the picture."""

    text: str
    boxes: Sequence[Stretch]


def parse_boxes(cell: str | None) -> Sequence[Stretch]:
    """Return the stretches of a cell that `find_error` lets pass."""
    return () if cell is None else json.loads(cell)


def boxes_error(cell: str, text: str | None, pictured: bool) -> str | None:
    """Say what is wrong with a cell of an example, the first of it; None if nothing is."""
    try:
        boxes = json.loads(cell)
    except (ValueError, RecursionError):
        return f"{BOXES} is no JSON; expected a list of {_FORM}"
    return find_error(boxes, text) or (None if pictured else f"{BOXES} is given without a picture that it could be in")


def find_error(boxes: Any, text: str | None) -> str | None:
    """Say what is wrong with a row's boxes, the first of it; None if nothing is."""
    if not isinstance(boxes, list):
        return f"{BOXES} is no list; expected a list of {_FORM}"
    if text is None:
        return f"{BOXES} is given without a text that it could be of"
    found = ((number, _find_error(one, len(text))) for number, one in enumerate(boxes, start=1))
    return next((f"{BOXES}, entry {number} of {len(boxes)}: {why}" for number, why in found if why), None)


def _find_error(one: Any, chars: int) -> str | None:
    whole = isinstance(one, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in one)
    if not whole or len(one) != len(KEYS):
        return f"{json.dumps(one)[:60]} is not of the form {_FORM}, six whole numbers"
    start, end, left, top, right, bottom = one
    if not 0 <= start < end <= chars:
        return f"start {start} and end {end} are no stretch of a text of {chars:,} characters"
    if not (0 <= left <= right <= SIDE and 0 <= top <= bottom <= SIDE):
        return (
            f"left {left}, top {top}, right {right}, bottom {bottom} are no box; expected left <= right and "
            f"top <= bottom, all from 0 to {SIDE}"
        )
    return None


def place_tokens(boxes: Iterable[Stretch], offsets: Sequence[tuple[int, int]]) -> list[Sequence[int]]:
    """Return the box of the first stretch that each token has a part in, NOWHERE where it has none.

    Args:
        offsets: where each token stands in the text, in order; special tokens and padding are empty.
    """
    stretches, at = sorted(boxes), 0
    places: list[Sequence[int]] = []
    for start, end in offsets:
        while at < len(stretches) and stretches[at][1] <= start:
            at += 1
        places.append(stretches[at][2:] if at < len(stretches) and stretches[at][0] < end else NOWHERE)
    return places


def stack_places(places: Sequence[Sequence[Sequence[int]]]) -> NDArray[np.int64]:
    """Make `boxes` [B, S, 4] of texts that were padded to the longest; at least one token wide."""
    boxes_BS4 = np.array(places, dtype=np.int64).reshape(len(places), -1, 4)
    return boxes_BS4 if boxes_BS4.size else np.full((len(places), 1, 4), -1, dtype=np.int64)
