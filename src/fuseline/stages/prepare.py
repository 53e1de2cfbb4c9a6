"""Deal the accepted examples to train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Params, Task
from fuseline.config import Prepare as Shares
from fuseline.data.shards import read_examples, write_table
from fuseline.data.split import SPLITS, split_of
from fuseline.errors import DataError
from fuseline.progress import say
from fuseline.records import Preparation, Validation
from fuseline.stages import entry

COLUMNS = ("id", "group", "text", "image", "target", "split", "meta", "source")
UNSEEN = ("text_pair", "image_pair", "audio", "audio_pair")
"""What members cannot look at yet."""


def main(params: Params) -> None:
    """Write train, val and test .parquet and preparation.json to build/prepare, from data and build/validate."""
    validation = Validation.read(entry.VALIDATE / "validation.json")
    if not validation.passed:
        raise DataError(
            f"the data contract refused this data set: {validation.why}. "
            "See build/validate/quarantine.parquet (of a run: .fuseline/runs/RUN/), mend or remove those rows, "
            "or raise validate.max_quarantined"
        )
    bad = pq.read_table(entry.VALIDATE / "quarantine.parquet", columns=["row"])["row"]
    tell_unseen(read_examples(entry.DATA, UNSEEN))
    examples = read_examples(entry.DATA, COLUMNS)
    accepted = examples.filter(pc.invert(pc.is_in(pa.array(range(examples.num_rows)), value_set=bad)))
    splits = deal(accepted, params.task, params.prepare)
    check_modalities(splits, params.members.modalities())
    folder = entry.fresh(entry.PREPARE)
    for name, table in splits.items():
        write_table(table, folder / f"{name}.parquet")
    preparation = describe(splits)
    preparation.write(folder / "preparation.json")
    say(f"prepare: {', '.join(f'{rows:,} {name}' for name, rows in preparation.rows.items())} rows")


def tell_unseen(columns: pa.Table) -> None:
    """Say what the data set holds that no member can look at yet."""
    held = {name: columns.num_rows - columns[name].null_count for name in columns.column_names}
    if any(held.values()):
        what = ", ".join(f"{name} ({rows:,} rows)" for name, rows in held.items() if rows)
        say(f"prepare: left out, for no member can look at it: {what}")


def deal(examples: pa.Table, task: Task, shares: Shares) -> dict[str, pa.Table]:
    """Split by group, unless a row says itself where it belongs, and number the labels.

    Raises:
        DataError: a split came out empty, or a class has no training example.
    """
    index = pc.index_in(examples["target"], value_set=pa.array(task.labels, pa.string())).cast(pa.int64())
    numbered = examples.append_column("label", index)
    drawn = pa.array([split_of(group, shares.salt, shares.val, shares.test) for group in examples["group"].to_pylist()])
    names = pc.if_else(examples["split"].is_valid(), examples["split"], drawn)
    splits = {name: numbered.filter(pc.equal(names, name)) for name in SPLITS}
    if empty := [name for name, table in splits.items() if not table.num_rows]:
        raise DataError(
            f"split {' and '.join(empty)} has no rows: {examples.num_rows} accepted rows are too few, "
            "or prepare.val or prepare.test is too small"
        )
    absent = sorted(set(task.labels) - set(splits["train"]["target"].to_pylist()))
    if absent and task.kind == "classification":
        raise DataError(f"no training example for {', '.join(absent)}; add some or take the label out of task.labels")
    return splits


def check_modalities(splits: Mapping[str, pa.Table], modalities: Sequence[str]) -> None:
    """Refuse splits on which a later stage would fail: training, the fit of the ensemble, the evaluation.

    Raises:
        DataError: naming every modality that no row of some split has.
    """
    absent = [
        f"{modality} in {name}"
        for name, table in splits.items()
        for modality in modalities
        if table[modality].null_count == table.num_rows
    ]
    if absent:
        raise DataError(
            f"no row with {', none with '.join(absent)}; expected some in each split, of every modality that a member "
            "uses: add such rows, raise prepare.val or prepare.test, or take the members on it out of params.yaml"
        )


def describe(splits: dict[str, pa.Table]) -> Preparation:
    """Count rows, groups and labels per split."""
    return Preparation(
        rows={name: table.num_rows for name, table in splits.items()},
        groups={name: len(pc.unique(table["group"])) for name, table in splits.items()},
        labels={name: dict(Counter(table["target"].to_pylist())) for name, table in splits.items()},
    )


if __name__ == "__main__":
    entry.run(main)
