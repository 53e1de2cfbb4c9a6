"""Golden rows: few that differ as much as test rows do, in what they lack and in size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image

from fuseline.inputs.image import decode_image, is_deep
from fuseline.runtime.predictor import Row
from fuseline.tasks.base import Task

Pattern = tuple[str, ...]
"""The modalities that a row has."""


@dataclass(frozen=True)
class Golden:
    """A row to rehearse with."""

    row: Row
    number: int | None
    """Which of the rows that were evaluated it is; None if a modality of it was hidden."""
    pattern: str
    """The modalities that it has, joined by +."""


def pick_golden(rows: Iterable[Row], modalities: Sequence[str], task: Task, most: int) -> list[Golden]:
    """Pick rows of each set of modalities that a row may have, from the smallest to the largest.

    Where no test row has just these, the others are hidden in rows that have more. About `most` are picked, and at
    least one of each set.

    Args:
        rows: they are gone through twice, and kept are those that were picked.
    """
    found = weigh_patterns(rows, modalities, task)
    share = max(1, most // len(found))
    picked: list[tuple[Pattern, int, bool]] = []
    for pattern, sized in found.items():
        larger = [one for other, of_other in found.items() if set(pattern) < set(other) for one in of_other]
        picked += [(pattern, number, not sized) for _, number in spread(sorted(sized or larger), share)]
    numbers = {number for _, number, _ in picked}
    kept = {number: row for number, row in enumerate(rows) if number in numbers}
    return [
        Golden(hide(kept[number], modalities, pattern), None, "+".join(pattern)) if hidden
        else Golden(kept[number], number, "+".join(pattern))
        for pattern, number, hidden in picked
    ]  # fmt: skip


def weigh_patterns(rows: Iterable[Row], modalities: Sequence[str], task: Task) -> dict[Pattern, list[tuple[int, int]]]:
    """Return size and number of the rows that have each set of modalities with which a row can be answered."""
    found: dict[Pattern, list[tuple[int, int]]] = {pattern: [] for pattern in patterns(modalities, task)}
    for number, row in enumerate(rows):
        if not task.words or (row.text or "").strip():
            found[tuple(name for name in modalities if has(row, name))].append((weigh(row), number))
    return found


def patterns(modalities: Sequence[str], task: Task) -> Iterator[Pattern]:
    """Yield the sets of modalities with which a row can be answered."""
    wanted = set(task.wanted(modalities))
    for size in range(1, len(modalities) + 1):
        yield from (chosen for chosen in combinations(modalities, size) if wanted & set(chosen))


def hide(row: Row, modalities: Sequence[str], pattern: Pattern) -> Row:
    """Return the row without the modalities that a pattern has not."""
    hidden: dict[str, Any] = {name: None for name in modalities if name not in pattern}
    return replace(row, **hidden | ({"boxes": ()} if "text" in hidden else {}))


def has(row: Row, modality: str) -> bool:
    """Tell whether a row has a modality."""
    return getattr(row, modality) not in (None, [], ())


def weigh(row: Row) -> int:
    """Return the size of what a row holds."""
    files = [row.audio or b"", *(row.image if isinstance(row.image, list | tuple) else [row.image or b""])]
    return len(row.text or "") + sum(map(len, files))


def spread(ordered: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Pick so many, evenly, the first and the last among them."""
    if len(ordered) <= count:
        return list(ordered)
    return [ordered[round(place * (len(ordered) - 1) / max(1, count - 1))] for place in range(count)]


def constants_of(row: Row, modalities: Sequence[str], several: bool, layout: bool, files: Path) -> dict[str, Any]:
    """Return what the README's snippet is to be asked with; pictures and sounds are written to a folder."""
    found: dict[str, Any] = {}
    files.mkdir(parents=True)
    if "text" in modalities:
        found["TEXT"] = row.text
        found |= {"BOXES": [list(stretch) for stretch in row.boxes]} if layout else {}
    if "image" in modalities:
        given = row.image if isinstance(row.image, list | tuple) else [] if row.image is None else [row.image]
        paths = [_write_picture(data, files / f"{number}.image") for number, data in enumerate(given)]
        found |= {"IMAGES": paths} if several else {"IMAGE": paths[0] if paths else None}
    if "audio" in modalities:
        found["AUDIO"] = None
        if row.audio is not None:
            (files / "audio").write_bytes(row.audio)
            found["AUDIO"] = str(files / "audio")
    return found


def _write_picture(data: bytes, path: Path) -> str:
    """Write a picture as it is; one of 16 bits is scaled to 8, as the snippet asks for."""
    if is_deep(data):
        Image.fromarray(decode_image(data)).save(path, "PNG")
    else:
        path.write_bytes(data)
    return str(path)
