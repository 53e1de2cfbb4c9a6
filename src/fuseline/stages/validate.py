"""Hold the data set against its contract; bad rows go to quarantine, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from fuseline.config import Params
from fuseline.data.contract import Report
from fuseline.data.docs import write_docs
from fuseline.data.shards import WIDE, iter_shard, open_writer, read_manifest
from fuseline.data.validation import Part, hold
from fuseline.progress import say
from fuseline.records import DataManifest
from fuseline.stages import entry

QUARANTINE = WIDE.append(pa.field("row", pa.int64())).append(pa.field("reasons", pa.string()))
"""The bad rows, with their number among the rows that stand, and why each is bad."""


def main(params: Params) -> None:
    """Write validation.json, quarantine.parquet and data_docs/ to build/validate, from data."""
    manifest = read_manifest(entry.DATA)
    parts, report, validation = hold(entry.DATA, manifest, params.task, params.validate_)
    folder = entry.fresh(entry.VALIDATE)
    with open_writer(folder / "quarantine.parquet", QUARANTINE) as writer:
        for bad in quarantine(manifest, parts, report):
            writer.write_table(bad)
    write_docs(folder / "data_docs", report.results)
    validation.write(folder / "validation.json")
    say(f"validate: {validation.why}")


def quarantine(manifest: DataManifest, parts: list[Part], report: Report) -> Iterator[pa.Table]:
    """Yield the bad rows of each shard, with their number and reasons beside them."""
    for shard, part in zip(manifest.shards, parts, strict=True):
        number = part.start
        if not any(part.start <= row < part.stop for row in report.reasons):
            continue
        offset = 0
        for rows in iter_shard(entry.DATA, shard, WIDE.names):
            live = rows.filter(part.live[offset : offset + rows.num_rows])
            offset += rows.num_rows
            bad = [row for row in range(number, number + live.num_rows) if row in report.reasons]
            if bad:
                taken = live.take(pa.array([row - number for row in bad], pa.int64()))
                reasons = ["; ".join(report.reasons[row].values()) for row in bad]
                taken = taken.append_column("row", pa.array(bad, pa.int64()))
                yield taken.append_column("reasons", pa.array(reasons, pa.string())).cast(QUARANTINE)
            number += live.num_rows


if __name__ == "__main__":
    entry.run(main)
