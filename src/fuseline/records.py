"""The JSON records by which stages, flow and report meet. Written sorted, read strictly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuseline.errors import FuselineError

System = Literal["ensemble", "student"]
"""What a bundle may hold: all members together, or the one that learnt from them."""
OTHER: dict[System, System] = {"ensemble": "student", "student": "ensemble"}
"""What stands beside the system that is exported, where there is a student."""


class Record(BaseModel):
    """A frozen JSON document with a fixed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record at `path`.

        Raises:
            FuselineError: the file is missing, is not JSON, or lacks or adds keys.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise FuselineError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise FuselineError(f"{path}: not a valid {cls.__name__} record at {where}: {first['msg']}") from error

    def write(self, path: Path) -> None:
        """Write sorted, indented JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON through a temporary file; NaN is refused."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """Return the hex sha256 of a file, read once in the life of a process as long as it stays the same."""
    found = path.stat()
    return _digest(path.absolute(), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=100_000)
def _digest(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return sha256_of(path)


FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""A file of the folder that the record lies in, and of no other."""
Count = Annotated[int, Field(ge=0)]


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


class Estimate(Record):
    """A metric with its bootstrap interval."""

    value: float
    low: float
    high: float


Metrics = dict[str, Estimate]


class ClassRow(Record):
    """One line of the per-class table."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Start(Record):
    """`start.json`: the champion that members may go on from.

    A run writes it, and start/ beside it, which start.dvc tracks.
    """

    version: str | None
    """None where there is nothing to go on from."""
    known: list[FileName]
    """Shards of the data set that the champion's held too."""
    files: dict[str, str]
    """Files of its members, by their path in start/, and their sha256."""
    prepare: dict[str, Any] = {}
    """The champion's section of that name: what its rows were dealt by."""
    encoders: dict[str, Any] = {}
    """The champion's section of that name: whose weights and inputs it had."""


class Origin(Record):
    """Where the weights of a member that may start warm come from."""

    version: str | None
    """The champion whose member it goes on from; None where it was trained anew."""
    why: str
    """In a sentence."""
    old_rows: Count
    """Training rows that the champion's data set held."""
    replayed: Count
    """How many of them each epoch takes."""
    new_rows: Count


class Epoch(Record):
    """Where a member stood after one epoch."""

    epoch: int
    train_loss: float
    val_loss: float
    val_score: float


class Ingredient(Record):
    """One of the trainings whose weights were to be averaged."""

    seed: int
    epochs: list[Epoch]
    score: float
    """On validation, by itself."""
    loss: float
    soup_score: float
    """Of the average of those before it that stayed, with it in."""
    soup_loss: float
    kept: bool


class History(Record):
    """`history.json`: a member's learning curve; of a soup that of its best ingredient."""

    metric: str
    """What `val_score` is."""
    epochs: list[Epoch]
    origin: Origin | None = None
    """None of a member that is trained anew each time."""
    soup: list[Ingredient] = []
    """What was trained for a soup, in the order in which it was tried; empty for none."""


class Transitions(Record):
    """Scores of steps between the tags of neighbouring words, added to the tags' own log-probabilities."""

    start: list[float]
    """Of each tag, for the first word."""
    steps: list[list[float]]
    """From a word's tag (rows) to the next word's."""
    end: list[float]
    """Of each tag, for the last word."""


class Stack(Record):
    """The correction that stacking makes to the pool."""

    weights: list[list[list[float]]]
    """Per member, from what it says of a class (rows) to the score of a class."""
    bias: list[float]


class Decoding(Record):
    """What a system has learned of how its probabilities become an answer."""

    transitions: Transitions | None = None
    """Of ner; None allows what the scheme allows, alike."""
    thresholds: list[float] = []
    """Of multilabel: the probability from which a row has each label; empty stands for one half."""


class Combination(Record):
    """`combination.json`: how members become one ensemble."""

    weights: dict[str, float]
    temperature: float
    pool: str
    modalities: list[str] = []
    """What `patterns` and the graph count by, in their order."""
    patterns: dict[str, dict[str, float]] = {}
    """The members' weights where just these modalities, joined by +, are there; `weights` for all other patterns."""
    stack: Stack | None = None
    """None where the pool is not corrected: params ask for no stacking, or it did not pay."""
    held_out: dict[str, float] = {}
    """Where stacking is tried: each penalty's log loss on validation rows that it was not fitted on; `none` is the
    pool's own."""
    decoding: Decoding = Decoding()
    """Of the ensemble."""
    decodings: dict[str, Decoding] = {}
    """Of each member by itself."""


class Evaluation(Record):
    """`evaluation.json`: what the ensemble and its members reach on the test split."""

    headline: str = "accuracy"
    """The metric that systems are compared by."""
    labels: list[str]
    """What `confusion` counts: the classes; for ner no entity, then the labels."""
    rows: int
    unseen: int = 0
    """Words, of ner, that `max_length` cut off: they count as outside of all entities."""
    confidence: float
    ensemble: Metrics
    members: dict[str, Metrics]
    """Each on the rows that have any of its modalities."""
    before: dict[str, Metrics]
    """Per member: the encoders as they were loaded, under a linear head."""
    fine_tuning_gain: dict[str, Metrics]
    """Per member: after minus before, paired."""
    student: Metrics | None = None
    """The student that learnt from the ensemble; None where there is none."""
    student_gain: Metrics | None = None
    """Student minus ensemble, paired."""
    fusion_gain: Metrics
    """Ensemble minus `best_single`, paired."""
    best_single: str
    """The member on one modality that did best on the test split."""
    patterns: dict[str, Metrics]
    """The ensemble when only this modality is given, on the rows that have it."""
    per_class: list[ClassRow]
    averages: list[ClassRow] = []
    """Of `per_class`: micro, macro and weighted."""
    confusion: list[list[int]]
    """Rows are true labels, columns predicted ones."""
    weights: dict[str, float]
    temperature: float
    contributions: dict[str, Metrics] = {}
    """Per member of an ensemble of several: the ensemble minus what is left without it, paired."""
    disagreement: dict[str, dict[str, float]] = {}
    """Share of rows for which two members, both of which see something, name different labels."""

    def of(self, system: System) -> Metrics:
        """Return what a system reached; the student's where there is one."""
        found = {"ensemble": self.ensemble, "student": self.student}[system]
        assert found is not None
        return found


class Versus(Record):
    """The champion and the challenger on the same test rows."""

    rows: Count
    champion: float
    challenger: float


class Forgetting(Record):
    """`forgetting.json`: whether what the champion knew is still known, and what was learnt since.

    Old are the test rows that the champion's data set held, new are those that came since. Where labels are new too,
    the champion knows nothing of them; labels that are gone it does not name.
    """

    champion: str
    metric: str
    """What `overall` is in: the headline metric."""
    overall: dict[str, Versus]
    """old and new; what has no row is left out."""
    recall: dict[str, dict[str, Versus]]
    """old and new, then label: the share of its rows, of ner of its entities, that is found."""


class Parity(Record):
    """How far the exported graph is from the torch ensemble, on real rows."""

    rows: int
    batch_sizes: list[int]
    max_logit_difference: float
    argmax_agreement: float
    """Share of rows, of ner of words, with the same predicted class; of multilabel of labels, given by both or by none,
    by their thresholds."""
    evaluation_agreement: float
    """The same share, for the graph and what was evaluated."""


BUNDLE_FORMAT = 4
"""What is read. It rises with a change that an older reader must not overlook, and a bundle is written as the lowest
format that says all of it: 1 has a label for each row, 2 a tag for each word, 3 a yes or no for each label; 4 may have
any of these, and rows with several pictures."""


class Lasting(Record):
    """A record that other versions of Fuseline read: unknown keys are passed over, and a later key has a default."""

    model_config = ConfigDict(extra="ignore")


class BundleFormat(Lasting):
    """The part of `bundle.json` that tells whether the rest can be read."""

    format: int = 1
    """Bundles from before there was a format are format 1."""


class BundleFile(Lasting):
    """One file of a bundle with its digest."""

    sha256: str
    bytes: int


class Bundle(BundleFormat):
    """`bundle.json`: all that a caller needs besides the graph."""

    name: str
    task: str
    labels: list[str]
    modalities: list[str]
    members: list[str]
    max_tokens: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    scheme: str | None = None
    """How tags stand for entities: bio or bioes; None where rows have labels."""
    tags: list[str] = []
    """Of such a task, the classes of a word, in the order of the outputs."""
    transitions: Transitions | None = None
    """Of such a task."""
    thresholds: list[float] = []
    """Where rows may have several labels: the probability from which a row has each; empty stands for one half."""
    versions: dict[str, str]
    data: str
    """sha256 of the data set's manifest."""
    code: str
    """sha256 over the package's sources."""
    files: dict[str, BundleFile]


class Latency(Record):
    """Latency and throughput at one batch size; milliseconds per call, examples per second."""

    batch_size: int
    calls: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    examples_per_second: float


class Beside(Record):
    """How fast the system that is not published ran under the same conditions."""

    system: System
    model_bytes: int
    batches: dict[str, Latency]


class Benchmark(Record):
    """`benchmark.json`: how fast the bundle ran, where, and under which conditions."""

    device: str
    """The plain sentence that is shown wherever these numbers are."""
    gpu: str | None
    providers_asked: list[str]
    providers_used: list[str]
    """The provider of each graph node that ran, most nodes first."""
    threads: int
    cpu: str
    cores: int
    platform: str
    onnxruntime: str
    model_bytes: int
    load_ms: float
    peak_memory_bytes: int
    batches: dict[str, Latency]
    """Keyed `batch_1`, `batch_8`, …"""
    beside: Beside | None = None
    """Where there is a student: the other of the two."""

    @property
    def system(self) -> System:
        """Which of the two ran, and is published if the gate passes."""
        return "ensemble" if self.beside is None else OTHER[self.beside.system]


class RuleOutcome(Record):
    """One rule's answer."""

    name: str
    metric: str
    value: float | None
    bound: str
    passed: bool
    why: str
    gain: Estimate | None = None
    """Of a rule with a margin: how much better than the champion, on the same rows."""


class Verdict(Record):
    """`verdict.json`: whether the challenger is blessed, rule by rule."""

    blessed: bool
    champion: str | None
    """The version that was judged against, if there was one."""
    rules: list[RuleOutcome]
