"""Examples on the page of a run: what was answered otherwise than before, and what wrong answers rest on."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from fuseline.errors import DataError
from fuseline.inputs.image import Square, decode_image, pictures_of, to_square
from fuseline.records import Explained, Flip, Marked, Seen
from fuseline.report import numbers, svg

SIDE = 144
"""Pixels of a picture's side: sharp at 72 on a screen of double density."""
CHARS = 400
"""Of a text that are shown."""
PICTURES = 3
"""Of a row that are shown."""

Row = Mapping[str, Any]
"""A row of a prepared file."""


@dataclass(frozen=True)
class Piece:
    """A piece of a text with its share in the answer, from -1 to 1 of the largest one; None where it has none."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Picture:
    """A picture, and over it the shares of its cells."""

    uri: str
    heat: Markup | None = None


@dataclass(frozen=True)
class Case:
    """One row, and what is said of it."""

    id: str
    said: Sequence[tuple[str, str]]
    """Name and value of each line."""
    text: Sequence[Piece] = ()
    pictures: Sequence[Picture] = ()


def flipped(flips: Iterable[Flip], rows: Mapping[str, Row], seen: Seen | None) -> list[Case]:
    """Show units whose answer is another one now; rows that are not at hand are left out."""
    return [
        Case(
            flip.id,
            [
                *([("of", flip.unit)] if flip.unit else []),
                ("true", flip.true),
                ("champion", f"{flip.champion}, {numbers.metric(flip.champion_probability)}"),
                ("now", f"{flip.challenger}, {numbers.metric(flip.challenger_probability)}"),
            ],
            cut(rows[flip.id].get("text"), []),
            [Picture(uri) for uri in thumbnails(rows[flip.id], seen)],
        )
        for flip in flips
        if flip.id in rows
    ]


def explained(errors: Iterable[Explained], rows: Mapping[str, Row], seen: Seen | None) -> list[Case]:
    """Show what wrong answers rest on; rows that are not at hand are left out."""
    cases = []
    for error in errors:
        if error.id not in rows:
            continue
        largest = max([abs(word.share) for word in error.words] + [1e-12])
        cells = max([abs(cell) for picture in error.pictures for row in picture for cell in row] + [1e-12])
        grids = [draw_heat(picture, cells) for picture in error.pictures]
        uris = thumbnails(rows[error.id], seen)
        shares = ", ".join(f"{name} {numbers.gain(share)}" for name, share in error.modalities.items())
        cases.append(Case(
            error.id,
            [
                ("true", f"{error.label}, {numbers.metric(error.label_probability)}"),
                ("answer", f"{error.predicted}, {numbers.metric(error.probability)}"),
                ("from", f"{numbers.metric(error.chance)} by chance, {shares}"),
            ],
            cut(rows[error.id].get("text"), [(word, word.share / largest) for word in error.words]),
            [Picture(uri, grid) for uri, grid in zip(uris, [*grids, *[None] * len(uris)], strict=False)],
        ))  # fmt: skip
    return cases


def cut(text: str | None, marked: Sequence[tuple[Marked, float]]) -> list[Piece]:
    """Cut a text into pieces with and without a share, and leave off what is too long."""
    if text is None:
        return []
    pieces, at = [], 0
    for word, share in marked:
        if word.start < at or word.end > CHARS:
            continue
        pieces += [Piece(text[at : word.start]), Piece(text[word.start : word.end], share)]
        at = word.end
    pieces.append(Piece(text[at:] if len(text) <= CHARS else text[at : max(at, CHARS)] + "…"))
    return [piece for piece in pieces if piece.text]


def thumbnails(row: Row, seen: Seen | None) -> list[str]:
    """Return a row's pictures as encoders see them, only larger, as data URIs; what cannot be decoded is left out."""
    if seen is None:
        return []
    square = Square(SIDE, None if seen.shorter is None else round(SIDE * seen.shorter / seen.side), "bilinear")
    found = []
    for content in (pictures_of(row) or [])[:PICTURES]:
        try:
            pixels = to_square(decode_image(content), square)
        except DataError:
            continue
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=80)
        found.append(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return found


def draw_heat(cells: Sequence[Sequence[float]], largest: float) -> Markup:
    """Draw the cells' shares as squares, the darker the larger; what speaks against the answer has the other colour."""
    side = len(cells)
    root = svg.canvas("Shares of the picture's parts", _count_cells(cells), css="cells", view_box=f"0 0 {side} {side}")
    for y, row in enumerate(cells):
        for x, share in enumerate(row):
            if abs(share) > largest / 10:
                css, opacity = "for" if share > 0 else "against", f"{0.75 * abs(share) / largest:.2f}"
                svg.add(root, "rect", css=css, x=x, y=y, width=1, height=1, fill_opacity=opacity)
    return svg.markup(root)


def _count_cells(cells: Sequence[Sequence[float]]) -> str:
    shares = [share for row in cells for share in row]
    speak = sum(share > 0 for share in shares), sum(share < 0 for share in shares)
    return f"{speak[0]} of {len(shares)} parts speak for the answer, {speak[1]} against it"
