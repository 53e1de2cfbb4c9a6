"""Hold the data set against its contract; bad rows go to quarantine, each with its reasons."""

from __future__ import annotations

import pyarrow as pa

from fuseline.config import Params
from fuseline.data.contract import Report, check
from fuseline.data.shards import read_examples, read_manifest, write_table
from fuseline.errors import DataError
from fuseline.progress import say
from fuseline.records import Validation
from fuseline.stages import entry


def main(params: Params) -> None:
    """Write validation.json and quarantine.parquet to build/validate, from data."""
    manifest = read_manifest(entry.DATA)
    if manifest.task != params.task.kind:
        raise DataError(f"data/manifest.json holds examples for {manifest.task}; task.kind is {params.task.kind}")
    labels = manifest.labels
    if sorted(labels) != sorted(params.task.labels):
        difference = sorted(set(labels) ^ set(params.task.labels))
        raise DataError(f"labels of data/manifest.json and task.labels of params.yaml differ in {difference}")
    examples = read_examples(entry.DATA)
    if not examples.num_rows:
        raise DataError("data/manifest.json: the data set has no rows")
    rules = params.validate_
    report = check(examples, params.task.labels, rules.max_text_chars, rules.min_image_side, rules.max_image_side)
    folder = entry.fresh(entry.VALIDATE)
    write_table(quarantine(examples, report), folder / "quarantine.parquet")
    validation = conclude(examples.num_rows, report, rules.max_quarantined)
    validation.write(folder / "validation.json")
    say(f"validate: {validation.why}")


def quarantine(examples: pa.Table, report: Report) -> pa.Table:
    """Take the bad rows, with their row number and reasons beside them."""
    rows = sorted(report.reasons)
    reasons = pa.array(["; ".join(report.reasons[row]) for row in rows], pa.string())
    bad = examples.take(pa.array(rows, pa.int64()))
    return bad.append_column("row", pa.array(rows, pa.int64())).append_column("reasons", reasons)


def conclude(rows: int, report: Report, max_quarantined: float) -> Validation:
    """Say whether the data set is fit to train on."""
    bad = len(report.reasons)
    passed = bad <= max_quarantined * rows
    first = ""
    if bad:
        row = min(report.reasons)
        first = f"; the first is row {row}: {'; '.join(report.reasons[row])}"
    why = f"{bad:,} of {rows:,} rows quarantined ({bad / rows:.1%}), at most {max_quarantined:.1%} allowed{first}"
    return Validation(passed=passed, why=why, rows=rows, quarantined=bad, expectations=report.expectations)


if __name__ == "__main__":
    entry.run(main)
