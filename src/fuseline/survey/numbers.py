"""Count and spread: what a data set holds, in numbers.

Shape letters: N rows in order of arrival, L labels.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fuseline.data.split import ABSENT, SPLITS
from fuseline.data.targets import names_in
from fuseline.records import DataManifest
from fuseline.report.dataset import Part, Spread
from fuseline.survey.rows import MODALITIES, Held

BINS = 24
NONE = "none"
"""Stands for no split, and for rows without target."""
SIZES = 8
NAMING = ("ner", "multilabel")
"""Problems of which a target may name several labels."""


def describe_shards(held: Held) -> list[Part]:
    """Say of each shard where it came from and what became of its rows."""
    parts, start = [], 0
    for shard in held.manifest.shards:
        replaced = shard.rows - int(held.live_N[start : start + shard.rows].sum())
        start += shard.rows
        parts.append(Part(
            file=shard.file, source=shard.source or "", rows=shard.rows, superseded=replaced,
            supersedes=shard.supersedes, quarantined=shard.quarantine.rows if shard.quarantine else 0,
            waives=shard.waives,
        ))  # fmt: skip
    return parts


def count_splits(splits: NDArray[np.int8]) -> dict[str, int]:
    """Count the rows in each split, and those in none."""
    found = {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)}
    return found | {NONE: int((splits == ABSENT).sum())}


def count_labels(
    manifest: DataManifest, targets: pa.ChunkedArray, splits: NDArray[np.int8]
) -> dict[str, dict[str, int]]:
    """Count each label's rows per split, or its spans where the task marks spans; nothing for a task without labels.

    Labels of the manifest come first, in its order, also those that no row has.
    """
    if not manifest.labels:
        return {}
    names = [*SPLITS, NONE]
    found = {label: dict.fromkeys(names, 0) for label in manifest.labels}
    for number, name in zip([*range(len(SPLITS)), ABSENT], names, strict=True):
        there = targets.filter(pa.array(splits == number))
        for label, count in count_targets(manifest.task, there).items():
            found.setdefault(label, dict.fromkeys(names, 0))[name] = count
    return found


def count_targets(task: str, targets: pa.ChunkedArray) -> dict[str, int]:
    """Count labels, or labels of spans."""
    if task in NAMING:
        return dict(Counter(label for target in targets.to_pylist() for label in labels_of(task, target)))
    counted = pc.value_counts(targets.fill_null(NONE)).to_pylist() if len(targets) else []
    return {one["values"]: one["counts"] for one in counted}


def labels_of(task: str, target: str | None) -> list[str]:
    """Return the labels that a target names; NONE for a list of none, nothing for a broken target for NER."""
    return names_in(task, target) or ([NONE] if task == "multilabel" else [])


def read_list(target: str | None, width: int) -> list[list[Any]]:
    """Return a target's JSON list of lists of `width` cells; what is broken counts as empty."""
    try:
        found = json.loads(target or "[]")
    except (ValueError, RecursionError):
        return []
    return (
        [cells for cells in found if isinstance(cells, list) and len(cells) == width] if isinstance(found, list) else []
    )


def count_patterns(live: pa.Table) -> dict[str, int]:
    """Count the rows by the modalities that they hold, most frequent first."""
    code = np.zeros(live.num_rows, np.int64)
    for bit, name in enumerate(MODALITIES):
        code |= live[f"has_{name}"].to_numpy().astype(np.int64) << bit
    counts = np.bincount(code, minlength=1)
    named = {name_pattern(int(one)): int(counts[one]) for one in np.flatnonzero(counts)}
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def name_pattern(code: int) -> str:
    """Name a set of modalities: `text + image`, `two texts`."""
    plural = {"text": "two texts", "image": "two images", "audio": "two recordings"}
    words = []
    for name in ("text", "image", "audio"):
        first, second = (code >> MODALITIES.index(one) & 1 for one in (name, f"{name}_pair"))
        if first or second:
            words.append(plural[name] if first and second else name)
    return " + ".join(words) or "nothing"


def spread_all(live: pa.Table, task: str) -> dict[str, Spread]:
    """Spread what is measured of the rows; what no row has is left out."""
    measured = {
        "Text": ("characters", live["text_chars"]),
        "Second text": ("characters", live["pair_chars"]),
        "Target": ("characters", pc.utf8_length(live["target"]) if task == "generation" else None),
        "Shorter side of pictures": ("px", live["short_side"]),
        "Longer side of pictures": ("px", live["long_side"]),
        "Recording": ("s", live["audio_seconds"]),
    }
    found = {
        name: spread(column.drop_null().to_numpy().astype(np.float64), unit)
        for name, (unit, column) in measured.items()
        if column is not None
    }
    return {name: one for name, one in found.items() if one is not None}


def spread(values: NDArray[np.float64], unit: str) -> Spread | None:
    """Put values into at most BINS + 1 bins of a round width; None where there is no value.

    The longest percent is left out of the bins where it reaches more than twice as far as the rest.
    """
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    p5, median, p95, p99 = (float(one) for one in np.quantile(values, [0.05, 0.5, 0.95, 0.99]))
    top = p99 if high > 2 * p99 else high
    step = round_up((top - low) / BINS, whole=unit != "s")
    first = math.floor(low / step)
    edges = [round(step * number, 10) for number in range(first, math.floor(top / step) + 2)]
    counts = np.histogram(values[values < edges[-1]], edges)[0]
    return Spread(
        unit=unit, rows=len(values), low=low, p5=p5, median=median, p95=p95, high=high, edges=edges,
        counts=[int(count) for count in counts], over=int((values >= edges[-1]).sum()),
    )  # fmt: skip


def round_up(width: float, whole: bool) -> float:
    """Return the next of 1, 2 and 5 times a power of ten; at least 1 for what is counted in whole numbers."""
    if width <= 0:
        return 1.0 if whole else 0.01
    power = 10.0 ** math.floor(math.log10(width))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * 0.999999)
    return max(step, 1.0) if whole else step


def count_sides(live: pa.Table) -> dict[str, int]:
    """Return the most frequent sizes of pictures, longer side first."""
    sides = live.select(["long_side", "short_side"]).drop_null()
    counted = sides.group_by(["long_side", "short_side"]).aggregate([([], "count_all")])
    largest = counted.sort_by([("count_all", "descending"), ("long_side", "ascending"), ("short_side", "ascending")])
    return {
        f"{row['long_side']} × {row['short_side']}": row["count_all"] for row in largest.slice(0, SIZES).to_pylist()
    }


def choose_gallery(
    manifest: DataManifest, held: Held, labels: Mapping[str, Mapping[str, int]], most: int, per_label: int
) -> dict[str, list[int]]:
    """Choose rows to show for each label, the same for the same rows: richest in modalities first, then by digest.

    Args:
        most: rows altogether; the most frequent labels are shown where there are more labels than rows.
        per_label: rows per label at most.
    """
    order = held.rows[_rank(held.live)]
    if not labels:
        return {"": order[: 3 * per_label].tolist()} if len(order) else {}
    frequent = sorted(labels, key=lambda label: -sum(labels[label].values()))[:most]
    each = max(1, min(per_label, most // max(len(frequent), 1)))
    wanted = {label: list[int]() for label in labels if label in set(frequent)}
    targets = held.table["target"]
    if manifest.task in NAMING:
        _choose_by_labels(wanted, order, targets, each, partial(labels_of, manifest.task))
    else:
        codes = (
            pc.index_in(targets.fill_null(NONE), value_set=pa.array(list(wanted), pa.string()))
            .fill_null(-1)
            .to_numpy()[order]
        )
        for number, label in enumerate(wanted):
            wanted[label] = order[np.flatnonzero(codes == number)[:each]].tolist()
    return {label: rows for label, rows in wanted.items() if rows}


def _choose_by_labels(
    wanted: dict[str, list[int]], order: NDArray[np.int64], targets: pa.ChunkedArray, each: int,
    read: Callable[[str | None], list[str]],
) -> None:  # fmt: skip
    """Fill each label's list with the first rows that have it and are not shown for another label."""
    for row in order.tolist():
        mine = next((label for label in read(targets[row].as_py()) if len(wanted.get(label, " " * each)) < each), None)
        if mine is not None:
            wanted[mine].append(row)
        if all(len(rows) == each for rows in wanted.values()):
            return


def _rank(live: pa.Table) -> NDArray[np.int64]:
    """Order rows by how many modalities they hold, then by digest: as good as drawn by lot, and always the same."""
    held = np.sum([live[f"has_{name}"].to_numpy().astype(np.int64) for name in MODALITIES], axis=0, dtype=np.int64)
    keys = pa.table({"held": pa.array(-held), "digest": live["digest"]})
    order: Sequence[Any] = pc.sort_indices(keys, [("held", "ascending"), ("digest", "ascending")]).to_numpy()
    return np.asarray(order, np.int64)
