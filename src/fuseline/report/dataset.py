"""What a data set's page tells: the numbers, which stand in the JSON beside it, and the examples that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fuseline.records import Leakage, Record, Validation


class Part(Record):
    """One shard, as it is today."""

    file: str
    source: str
    rows: int
    superseded: int
    """Its rows that later shards replaced."""
    supersedes: int
    """Rows of older shards that it replaced."""
    quarantined: int
    """Rows of the batch that were not accepted."""
    waives: list[str]


class Spread(Record):
    """How a number is spread over the rows that have it."""

    unit: str
    rows: int
    low: float
    p5: float
    median: float
    p95: float
    high: float
    edges: list[float]
    """Of the bins, one more than there are counts; each holds its lower edge, not its upper one."""
    counts: list[int]
    over: int
    """Rows at or above the last edge: a few far out would leave the rest in one bin."""


class Family(Record):
    """Rows that repeat each other."""

    rows: int
    exact: bool
    """Whether all hold the very same content; near ones differ in dress, size or compression."""
    targets: dict[str, int]
    shown: list[int]
    """Numbers of the first rows, in order of arrival."""


class Repeats(Record):
    """Duplicates, whatever their targets."""

    families: int
    rows: int
    """In all families together."""
    exact: int
    """Rows whose very content an earlier one has."""
    largest: list[Family]


class Conflicts(Record):
    """Contents that stand under several targets."""

    contents: int
    rows: int
    first: list[Family]


class Refused(Record):
    """A row that was not accepted."""

    batch: int
    where: str | None
    id: str | None
    reasons: dict[str, str]
    """Rule → why."""


class Quarantine(Record):
    """Rows that batches brought and that were not accepted."""

    rows: int
    rules: dict[str, int]
    """How many rows broke each rule; a row may break several."""
    first: list[Refused]


class Comparison(Record):
    """One number of two versions compared."""

    what: str
    kind: str
    """The test's name."""
    before: int
    """Observations it looked at."""
    after: int
    distance: float
    """0 where both are spread alike, 1 where they have nothing in common."""
    p: float | None
    """How probable so large a distance is by chance alone; None where there is nothing to compare."""


class Shift(Record):
    """A label's rows in two versions."""

    label: str
    before: int
    after: int
    added: int
    """Among the rows that only the later version has."""


class Relabelled(Record):
    """A row with another target than before."""

    row: int
    id: str
    before: str
    after: str


class Drift(Record):
    """What changed since another version."""

    revision: str
    """As the user named it."""
    data: str
    before: int
    after: int
    added: int
    removed: int
    changed: int
    """Rows of the same id whose content, target, group, split or meta differs."""
    relabelled: int
    labels: list[Shift]
    tests: list[Comparison]
    shown_added: list[int]
    shown_removed: list[str]
    """Ids of the first rows that are gone."""
    shown_relabelled: list[Relabelled]


class Dataset(Record):
    """`report.json`: a data set in numbers."""

    name: str
    task: str
    revision: str
    """Digest in data.dvc."""
    rows: int
    forgotten: int
    shards: list[Part]
    labels: dict[str, dict[str, int]]
    """Label → split, or `none` for rows in no split → rows, or marked spans where the task marks spans."""
    splits: dict[str, int]
    """Split, or `none` → rows."""
    patterns: dict[str, int]
    """Modalities that a row holds, as `text + image` → rows."""
    spreads: dict[str, Spread]
    sides: dict[str, int]
    """The most frequent sizes of pictures, longer side first → rows."""
    gallery: dict[str, list[int]]
    """Label → numbers of the rows shown for it."""
    repeats: Repeats
    conflicts: Conflicts
    leakage: Leakage | None
    """None for a data set without rows, like `validation`."""
    validation: Validation | None
    broken: list[Refused]
    """The first rows in the data set that break the contract as params.yaml has it now."""
    quarantine: Quarantine
    drift: Drift | None


@dataclass(frozen=True)
class Picture:
    """A thumbnail."""

    uri: str
    width: int
    height: int
    """Pixels of the original, like `width`."""


@dataclass(frozen=True)
class Sound:
    """A recording as it looks, and where it is short, to be played."""

    seconds: float
    peaks: Sequence[float]
    """Largest amplitude in equal stretches of time, 0 to 1."""
    uri: str | None


@dataclass(frozen=True)
class Piece:
    """A stretch of a text; a marked one has a label."""

    text: str
    label: str | None = None


@dataclass(frozen=True)
class Example:
    """One row, as the page shows it."""

    id: str
    split: str | None
    target: str | None
    """Where it is not marked in the texts."""
    texts: Sequence[Sequence[Piece]] = ()
    pictures: Sequence[Picture] = ()
    sounds: Sequence[Sound] = ()
    notes: Sequence[str] = ()
    """What could not be shown, and why."""

    @property
    def long(self) -> bool:
        """Whether it has so much text that it needs a wide card."""
        return sum(len(piece.text) for text in self.texts for piece in text) > WIDE


WIDE = 70
"""Characters of text that fit into a narrow card."""


@dataclass(frozen=True)
class Sheet:
    """All that the page is made of."""

    dataset: Dataset
    created: str
    """ISO time, given by the caller: a page is a pure function of its sheet."""
    docs: Mapping[str, str] = field(default_factory=dict)
    """Name of a page of Great Expectations' Data Docs → link, relative to this page."""
    examples: Mapping[int, Example] = field(default_factory=dict)
    """Number of a row → how it is shown."""
