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
    """
    found: dict[tuple[str, ...], list[tuple[int, int]]] = {pattern: [] for pattern in patterns(modalities, task)}
    kept = list(rows)
    for number, row in enumerate(kept):
        if not task.words or (row.text or "").strip():
            found[tuple(name for name in modalities if has(row, name))].append((weigh(row), number))
    share = max(1, most // len(found))
    golden = []
    for pattern, sized in found.items():
        picked = [kept_number for _, kept_number in spread(sorted(sized), share)]
        golden += [Golden(kept[number], number, "+".join(pattern)) for number in picked]
        if not picked:
            golden += _hide(kept, found, pattern, modalities, share)
    return golden


def patterns(modalities: Sequence[str], task: Task) -> Iterator[tuple[str, ...]]:
    """Yield the sets of modalities with which a row can be answered."""
    wanted = set(task.wanted(modalities))
    for size in range(1, len(modalities) + 1):
        yield from (chosen for chosen in combinations(modalities, size) if wanted & set(chosen))


def _hide(
    rows: Sequence[Row], found: dict[tuple[str, ...], list[tuple[int, int]]], pattern: tuple[str, ...],
    modalities: Sequence[str], count: int,
) -> list[Golden]:  # fmt: skip
    larger = [one for other, sized in found.items() if set(pattern) < set(other) for one in sized]
    hidden: dict[str, Any] = {name: None for name in modalities if name not in pattern}
    hidden |= {"boxes": ()} if "text" in hidden else {}
    chosen = [rows[number] for _, number in spread(sorted(larger), count)]
    return [Golden(replace(row, **hidden), None, "+".join(pattern)) for row in chosen]


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
