"""How far a data set has moved from an earlier one of which it still holds shards: distances between 0 and 1.

They are of all rows that stand against those of them that the earlier one held, so that a small batch moves little,
however odd it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp

from fuseline.data.facts import read_facts
from fuseline.data.shards import live_rows, read_manifest, read_shard
from fuseline.data.targets import names_in

MODALITIES = {"text": "text_chars", "image": "image_error", "audio": "audio_error"}
"""The fact that is there where the modality is."""


def find_drift(folder: Path, known: Collection[str]) -> dict[str, float]:
    """Compare a data set with the part of it that is known.

    Args:
        known: names of its shards.

    Returns:
        labels, modalities: the total variation distance between their shares, of modalities by pattern; text_length:
        the statistic of Kolmogorov and Smirnov's test. What one side has nothing of is left out.
    """
    manifest = read_manifest(folder)
    tables = [read_shard(folder, shard, ["id", "target"]) for shard in manifest.shards]
    live = live_rows([table["id"] for table in tables], [shard.supersedes for shard in manifest.shards])
    rows = []
    for shard, table, mask in zip(manifest.shards, tables, live, strict=True):
        facts = read_facts(folder, shard, columns=tuple(MODALITIES.values()))
        old = pa.array([shard.file in known] * shard.rows)
        table = pa.table({"target": table["target"], "old": old} | {name: facts[name] for name in facts.column_names})
        rows.append(table if mask is None else table.filter(mask))
    everything = pa.concat_tables(rows)
    return measure(manifest.task, everything.filter(everything["old"]), everything)


def measure(task: str, before: pa.Table, after: pa.Table) -> dict[str, float]:
    """Measure distances between two tables of target and facts."""
    both = before, after
    labels = [
        Counter(name for target in table["target"].to_pylist() for name in names_in(task, target)) for table in both
    ]
    patterns = [Counter(_patterns(table)) for table in both]
    lengths = [table["text_chars"].drop_null().to_numpy() for table in both]
    found = {}
    for name, counts in (("labels", labels), ("modalities", patterns)):
        if all(counts):
            found[name] = total_variation(*counts)
    if all(len(one) for one in lengths):
        found["text_length"] = float(ks_2samp(*lengths, method="asymp").statistic)
    return found


def _patterns(table: pa.Table) -> Iterable[int]:
    there = np.array([table[fact].is_valid().to_numpy() for fact in MODALITIES.values()], np.int64)
    found: Iterable[int] = (there.T @ (1 << np.arange(len(MODALITIES)))).tolist()
    return found


def total_variation(
    before: Mapping[str, int] | Mapping[int, int], after: Mapping[str, int] | Mapping[int, int]
) -> float:
    """Return half the sum of the differences between the shares that counts are."""
    shares = [{name: count / sum(counts.values()) for name, count in counts.items()} for counts in (before, after)]
    names = {name for one in shares for name in one}
    return sum(abs(shares[0].get(name, 0.0) - shares[1].get(name, 0.0)) for name in names) / 2
