"""Deal the accepted examples to train, val and test, duplicates together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline import cache
from fuseline.config import Params
from fuseline.config import Task as Settings
from fuseline.data.arrivals import Rows, read_rows
from fuseline.data.dealing import Prepared, deal_rows
from fuseline.data.duplicates import Bools, Ints
from fuseline.data.facts import workers
from fuseline.data.shards import iter_shard, open_writer, read_manifest, schema_of
from fuseline.data.split import ABSENT, SPLITS, Codes
from fuseline.data.targets import LABELLED
from fuseline.errors import DataError
from fuseline.progress import Progress, say
from fuseline.records import DataManifest, Preparation, Shard, Validation
from fuseline.stages import entry
from fuseline.tasks import KINDS
from fuseline.tasks.base import Task


def main(params: Params) -> None:
    """Write SHARD.parquet to build/prepare/{train,val,test}, and preparation.json and leakage.json beside them."""
    refuse_unfit_data()
    manifest = read_manifest(entry.DATA)
    labelled, trained = params.task.kind in LABELLED, params.task.kind in KINDS
    with workers() as pool:
        rows = read_rows(entry.DATA, manifest, params.prepare, labelled, pool)
    prepared = deal_rows(rows, params.prepare, quarantined_rows(rows.live_N))
    labels = count_labels(rows, prepared.splits_N, params.task) if labelled else {}
    refuse_poor_splits(prepared.splits_N, labels)
    if trained:
        needed = sorted({expert.modality for expert in params.members.experts.values()})
        check_modalities(count_modalities(rows, prepared.splits_N), needed)
    folder = entry.fresh(entry.PREPARE)
    write_splits(folder, manifest, prepared.splits_N, entry.task_of(params) if trained else None)
    preparation = describe(prepared, rows.arrivals.groups_N, labels)
    preparation.write(folder / "preparation.json")
    prepared.leakage.write(folder / "leakage.json")
    say(f"prepare: {', '.join(f'{count:,} {name}' for name, count in preparation.rows.items())} rows")
    if preparation.duplicates or preparation.held_out:
        say(
            f"prepare: {preparation.duplicates:,} rows repeat an earlier one, {preparation.held_out:,} are held out; "
            "see build/prepare/leakage.json"
        )


def refuse_unfit_data() -> None:
    """Refuse a data set that broke its contract.

    Raises:
        DataError: it did.
    """
    validation = Validation.read(entry.VALIDATE / "validation.json")
    if not validation.passed:
        raise DataError(
            f"the data contract refused this data set: {validation.why}. "
            "See build/validate/quarantine.parquet (of a run: .fuseline/runs/RUN/), mend or remove those rows, "
            "or loosen the bound: validate.max_quarantined, or the key that is named"
        )


def quarantined_rows(live_N: Bools) -> Ints:
    """Return the rows in quarantine; the stage before numbers them among those that stand."""
    bad = pq.read_table(entry.VALIDATE / "quarantine.parquet", columns=["row"])["row"].to_numpy()
    return np.flatnonzero(live_N)[bad]  # type: ignore[no-any-return]


def count_labels(rows: Rows, splits_N: Codes, task: Settings) -> dict[str, dict[str, int]]:
    """Count, split by split, the rows that have each of the task's labels."""
    found = {}
    for number, split in enumerate(SPLITS):
        targets = rows.names["target"].filter(pa.array(splits_N == number))
        if task.kind == "multilabel":
            targets = pa.array([label for target in targets.to_pylist() for label in json.loads(target)], pa.string())
        counts = {one["values"]: one["counts"] for one in pc.value_counts(targets).to_pylist()}
        found[split] = {label: counts.get(label, 0) for label in task.labels}
    return found


def refuse_poor_splits(splits_N: Codes, labels: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse a deal that nothing can be trained or measured on.

    Raises:
        DataError: a split came out empty, or a class has no training example.
    """
    if empty := [name for number, name in enumerate(SPLITS) if not (splits_N == number).any()]:
        raise DataError(
            f"split {' and '.join(empty)} has no rows: {(splits_N != ABSENT).sum()} accepted rows are too few, "
            "prepare.val or prepare.test is too small, the groups are so few that the hash sent all elsewhere (another "
            "prepare.salt deals anew), rows name the other splits alone (prepare.val_from_train), or duplicates tie "
            "nearly all rows to one family (prepare.duplicates)"
        )
    if absent := [label for label, count in labels.get("train", {}).items() if not count]:
        raise DataError(
            f"no training example for {', '.join(sorted(absent))}; add some or take the label out of task.labels"
        )


def count_modalities(rows: Rows, splits_N: Codes) -> dict[str, dict[str, int]]:
    """Count the rows of each split that have each modality."""
    has = {name: rows.facts[fact].is_valid().to_numpy() for name, fact in _FACTS.items()}
    return {
        split: {name: int((has_N & (splits_N == number)).sum()) for name, has_N in has.items()}
        for number, split in enumerate(SPLITS)
    }


_FACTS = {"text": "text_chars", "image": "image_error", "audio": "audio_error"}


def check_modalities(counts: Mapping[str, Mapping[str, int]], modalities: Sequence[str]) -> None:
    """Refuse splits on which a later stage would fail: training, the fit of the ensemble, the evaluation.

    Raises:
        DataError: naming every modality that no row of some split has.
    """
    absent = [f"{name} in {split}" for split, found in counts.items() for name in modalities if not found[name]]
    if absent:
        raise DataError(
            f"no row with {', none with '.join(absent)}; expected some in each split, of every modality that a member "
            "uses: add such rows, raise prepare.val or prepare.test, or take the members on it out of params.yaml"
        )


def write_splits(folder: Path, manifest: DataManifest, splits_N: Codes, task: Task | None) -> None:
    """Put each shard's rows into the split they belong to, in files of the shard's name, numbered as the task numbers.

    A shard whose rows stay where they are gives the same bytes as before, whatever else came in: they are in the
    cache, and linked.
    """
    start, progress = 0, Progress("prepare: writing", len(manifest.shards))
    for done, shard in enumerate(manifest.shards, start=1):
        _write_shard(folder, shard, splits_N[start : start + shard.rows], task)
        start += shard.rows
        progress.at(done)


def _write_shard(folder: Path, shard: Shard, splits: Codes, task: Task | None) -> None:
    numbers = [number for number in range(len(SPLITS)) if (splits == number).any()]
    code = cache.code_of("stages/prepare", "data/shards", "tasks", "inputs/words")
    how = f"{code} {cache.versions_of('pyarrow', 'tokenizers')}"
    named = [task.kind, *task.labels, *task.classes] if task else []
    made_from = [shard.sha256, hashlib.sha256(splits.tobytes()).hexdigest(), how, *named]
    files = cache.fetch_all(
        "prepared", [[SPLITS[number], *made_from] for number in numbers],
        lambda parts: _divide(shard, splits, dict(zip(numbers, parts, strict=True)), task),
    )  # fmt: skip
    for number, file in zip(numbers, files, strict=True):
        (folder / SPLITS[number]).mkdir(exist_ok=True)
        cache.link(file, folder / SPLITS[number] / shard.file)


def _divide(shard: Shard, splits: Codes, parts: Mapping[int, Path], task: Task | None) -> None:
    """Copy a shard's rows to one file for each split."""
    kind = pa.list_(pa.int64()) if task and task.unit != "row" else pa.int64()
    given = schema_of(entry.DATA, shard)
    schema = given.append(pa.field("label", kind)) if task else given
    start = 0
    with ExitStack() as stack:
        writers = {number: stack.enter_context(open_writer(part, schema)) for number, part in parts.items()}
        for rows in iter_shard(entry.DATA, shard, given.names) if writers else ():
            here = splits[start : start + rows.num_rows]
            start += rows.num_rows
            if task:
                dealt = (here != ABSENT).tolist()  # the others may have targets that are none
                cells = zip(dealt, rows["target"].to_pylist(), rows["text"].to_pylist(), strict=True)
                labels = [task.number(target, text) if kept else None for kept, target, text in cells]
                rows = rows.append_column("label", pa.array(labels, kind))
            for number, writer in writers.items():
                if (here == number).any():
                    writer.write_table(rows.filter(pa.array(here == number)))


def describe(prepared: Prepared, groups_N: Ints, labels: Mapping[str, Mapping[str, int]]) -> Preparation:
    """Count rows and groups per split, and name the labels that each has."""
    chosen = {name: prepared.splits_N == number for number, name in enumerate(SPLITS)}
    return Preparation(
        rows={name: int(rows_N.sum()) for name, rows_N in chosen.items()},
        groups={name: len(np.unique(groups_N[rows_N])) for name, rows_N in chosen.items()},
        labels={name: {label: count for label, count in found.items() if count} for name, found in labels.items()},
        held_out=prepared.held_out,
        duplicates=prepared.leakage.duplicates,
    )


if __name__ == "__main__":
    entry.run(main)
