"""Data: shards, validation, preparation, leakage."""

from __future__ import annotations

from pathlib import Path

from fuseline.errors import FuselineError
from fuseline.records.base import Count, FileName, Record


class DataFile(Record):
    """A file that stands beside a shard."""

    file: FileName
    sha256: str
    rows: Count


class Shard(Record):
    """One immutable Parquet file of accepted examples: one batch."""

    file: FileName
    sha256: str
    rows: Count
    facts: DataFile | None = None
    """What was found out about each row when it came in; None where it has to be found out again."""
    quarantine: DataFile | None = None
    """Rows of the batch that were not accepted, each with its reasons."""
    supersedes: Count = 0
    """Rows of older shards that rows of this one, of the same id, replace."""
    waives: list[str] = []
    """Rules of the contract that somebody released these rows from."""
    batch: str | None = None
    """Digest of the batch's rows: the same batch is known again under any path."""
    source: str | None = None
    """Where the batch came from, and in which format."""


class DataManifest(Record):
    """`data/manifest.json`: what the data set consists of."""

    name: str
    task: str
    labels: list[str]
    rows: Count
    """Examples that stand: those of all shards, less the superseded ones."""
    shards: list[Shard]
    """In the order in which they came in."""
    forgotten: Count = 0
    """Examples that were deleted on request since the data set began."""
    forgotten_digests: DataFile | None = None
    """Digests of their ids and of what they showed: nothing of either is kept, and neither is taken in again."""
    pinned_splits: DataFile | None = None
    """Examples that are in a split because of some that were forgotten, and stay there."""


class Expectation(Record):
    """One rule of the data contract and how many rows broke it."""

    rule: str
    passed: bool
    failed_rows: int
    """0 too where the whole breaks a rule, and no row does."""
    why: str = ""
    """Of a rule on the whole: what was found."""


class Validation(Record):
    """`validation.json`: the data contract's verdict."""

    passed: bool
    why: str
    rows: int
    quarantined: int
    refused: int = 0
    """Rows that batches brought and that were not accepted; they stand in data/, not among `rows`."""
    expectations: list[Expectation]


class Preparation(Record):
    """`preparation.json`: rows per split and label."""

    rows: dict[str, int]
    groups: dict[str, int]
    labels: dict[str, dict[str, int]]
    """Empty for a task without labels."""
    held_out: int = 0
    """Sound rows that are in no split; leakage.json says why."""
    duplicates: int = 0
    """Rows that repeat an earlier one, and share its split."""


class Alike(Record):
    """A row that is like one in another split, in one modality."""

    id: str
    split: str
    other: str
    other_split: str


class Across(Record):
    """How many rows are like one in another split, and the first of them."""

    rows: int
    examples: list[Alike]


class Excluded(Record):
    """A row that is in no split."""

    id: str
    why: str


class Exclusion(Record):
    """How many rows are in no split for one reason, and the first of them."""

    rows: int
    examples: list[Excluded]


class Leakage(Record):
    """`leakage.json`: what was done against leaks between the splits, and what is alike across them nevertheless."""

    duplicates: int
    """Rows that repeat an earlier one."""
    joined: int
    """Rows whose group duplicates tie to another one."""
    largest_family: int
    """Rows of the largest family of groups so tied; 0 where there is none."""
    across: dict[str, Across]
    """Kind of likeness, in one modality alone → rows nearer to the test with one nearer to training. Whole examples
    that are alike are never in two splits; a text or a picture that several have may be."""
    held_out: dict[str, Exclusion]


def files_of(split: Path) -> list[Path]:
    """Return the files of a prepared split, in the order of their shards.

    Args:
        split: a folder such as build/prepare/test.

    Raises:
        FuselineError: it holds none.
    """
    found = sorted(split.glob("*.parquet"))
    if not found:
        raise FuselineError(f"{split}: holds no Parquet file; the prepare stage writes them: `dvc repro`")
    return found
