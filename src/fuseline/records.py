"""The JSON records by which stages, flow and report meet. Written sorted, read strictly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuseline.errors import FuselineError

System = Literal["ensemble", "student"]
"""What a bundle may hold: all members together, or the one that learnt from them."""
OTHER: dict[System, System] = {"ensemble": "student", "student": "ensemble"}
"""What stands beside the system that is exported, where there is a student."""


Kind = Literal["quality", "serving"]
"""What a gate's rule is a rule of: what the model has learned, on which data; or how it is served."""


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


def write_json(path: Path, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
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
    """A metric with its interval; evaluation/intervals.py has how it is made."""

    value: float
    low: float | None
    """None on both sides where there is one group of rows: how far the value would vary cannot be told."""
    high: float | None
    standard_error: float | None = None
    """By the bootstrap over groups."""
    groups: int | None = None
    rarest: int | None = None
    """Of a mean over labels: groups that hold the label which the fewest hold."""
    effective_rows: float | None = None
    """Of a share: independent rows that would tell as much; None of other numbers."""

    def brackets(self, form: str) -> str:
        """Put the bounds into words, after the value; nothing where they cannot be told."""
        return "" if self.low is None or self.high is None else f" [{self.low:{form}}, {self.high:{form}}]"


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


class Slice(Record):
    """Part of the test rows, measured by itself."""

    rows: int
    ensemble: Metrics
    student: Metrics | None = None
    """None where there is none."""


class Bin(Record):
    """Units whose answers were given with nearly the same confidence."""

    units: Count
    confidence: float
    """On the mean."""
    accuracy: float
    """Share of right answers."""


class Calibration(Record):
    """How far the confidence of answers is their share of right ones."""

    bins: list[Bin]
    """Those that the calibration error (ece) is summed over, but for empty ones."""
    chance: Estimate
    """The calibration error of answers with the same confidences that are right exactly as often as these say: what so
    few units leave to chance. Its mean, and the interval that 90 % of it are in; groups do not count."""


class Change(Record):
    """A number before fine-tuning and after it, on the same rows."""

    rows: Count
    """Of a class, the class's own; of ner its entities."""
    before: float
    after: float


class Tuning(Record):
    """What fine-tuning changed for a member, part by part of the test rows that it sees."""

    classes: dict[str, Change]
    """F1."""
    slices: dict[str, dict[str, Change]]
    """What `evaluate.slices` names → value → the headline metric."""


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
    tuning: dict[str, Tuning] = {}
    """The same in parts."""
    student: Metrics | None = None
    """The student that learnt from the ensemble; None where there is none."""
    student_gain: Metrics | None = None
    """Student minus ensemble, paired."""
    calibration: dict[System, Calibration] = {}
    fusion_gain: Metrics
    """Ensemble minus `best_single`, paired."""
    best_single: str
    """The member on one modality that did best on the test split."""
    patterns: dict[str, Metrics]
    """The ensemble when only these modalities, joined by +, are given, on the rows that have them."""
    robustness: dict[str, Metrics] = {}
    """The ensemble on disturbed rows, by the disturbance's name."""
    robustness_gain: dict[str, Metrics] = {}
    """Disturbed minus undisturbed, paired."""
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
    slices: dict[str, dict[str, Slice]] = {}
    """What `evaluate.slices` names → value → the systems on its rows."""

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


BUNDLE_FORMAT = 5
"""What is read. It rises with a change that an older reader must not overlook, and a bundle is written as the lowest
format that says all of it: 1 has a label for each row, 2 a tag for each word, 3 a yes or no for each label; 4 may have
any of these, and rows with several pictures; 5 also where words stand in the picture."""


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


Answer = Literal["passed", "failed", "not answered", "incomparable"]


class Power(Record):
    """What a comparison on these test rows can tell; by the normal approximation, from its standard error."""

    standard_error: float
    """Of the gain."""
    visible: float
    """The smallest true difference that the interval would have told from 0 with a probability of 0.8."""
    equal_passes: float
    """Probability with which a model that is as good as the champion passes the rule."""
    worse: float
    """Twice the margin below zero: a model that is worse by this much…"""
    worse_passes: float
    """…passes with this probability."""
    needed_rows: int | None = None
    """Rows of this kind with which an equal model passes as often as the rule asks; None where it asks nothing, or no
    number is enough."""


class SliceAnswer(Record):
    """What a rule found in one slice."""

    slice: str
    rows: int
    answer: Answer | Literal["too small"]
    estimate: Estimate | None
    """Of the metric, or with a margin of the gain; the interval's coverage is evaluate.confidence."""
    held: float | None
    """What was held against the bound: the estimate, or the one-sided bound at the confidence of this slice."""
    confidence: float | None
    """Of `held`, corrected for the number of slices (Holm 1979); None where the estimate decides."""


class Marked(Record):
    """A stretch of a text, in characters, with its share in an answer."""

    start: int
    end: int
    share: float


class Explained(Record):
    """One answer, and what it rests on."""

    id: str
    unit: int | None
    """Number of the word or label within the row; None where rows are scored."""
    label: str
    """The true class."""
    predicted: str
    probability: float
    """Of the predicted class."""
    label_probability: float
    """Of the true one."""
    modalities: dict[str, float]
    """Shapley values of the predicted class's probability: with `chance` they add up to it."""
    chance: float
    """The predicted class's share of the training units: what is said where nothing is shown."""
    words: list[Marked] = []
    """Shares in the log-probability, token by token."""
    pictures: list[list[list[float]]] = []
    """The same for each picture, cell by cell, rows from the top."""
    recording: list[float] = []
    """The same for stretches of equal length."""


REVIEW = "review"
"""Folder of the examples to look at again: kept with a run's evidence, and left out of what is published."""


class Doubt(Record):
    """An example to look at again."""

    id: str
    split: str
    label: str
    """Its target, as it is given."""
    answer: dict[str, Any]
    """What the ensemble says of it, as a bundle answers."""
    probability: float
    """Of the class that the ensemble would have it be; of the row's unit that is most in doubt."""
    margin: float
    """Probability of the given class less that of the likeliest other one."""


class Seen(Record):
    """The square of a picture that encoders see: the middle of it, resized so that its shorter edge is `shorter`."""

    side: int
    shorter: int | None
    """None squeezes the whole picture into the square."""


class Explanation(Record):
    """`explanation.json`: what answers rest on, and which labels are in doubt."""

    rows: int
    """Test rows that were asked with each set of modalities."""
    chance: dict[str, float]
    """Metrics where nothing is shown and each class is as likely as among the training units."""
    modalities: dict[str, Metrics]
    """Exact Shapley values: what each adds to accuracy, and takes from nll; with `chance` they add up."""
    by_class: dict[str, dict[str, float]]
    """For each class, what each modality adds to the probability of it, on the mean over the units of the class."""
    errors: list[Explained]
    """The most confident wrong answers."""
    doubts: list[Doubt]
    """Of validation and test rows."""
    seen: Seen | None = None
    """None where there are no pictures."""


class RuleOutcome(Record):
    """One rule's answer."""

    name: str
    metric: str
    kind: Kind
    answer: Answer
    passed: bool
    """Whether the rule stands in no way: it passed, or somebody accepted that it is incomparable."""
    value: float | None
    """The estimate; by slices that of the worst one, or the largest gap."""
    bound: str
    held: float | None = None
    """What was held against the bound, where it is not the estimate: the one-sided bound at the rule's confidence."""
    rows: int | None = None
    """What the value is of; None where it is of no rows."""
    interval: Estimate | None = None
    """The value with its two-sided interval at `evaluate.confidence`; None where there is none."""
    why: str
    gain: Estimate | None = None
    """Of a rule with a margin: how much better than the champion, on the same rows."""
    power: Power | None = None
    """Of such a rule."""
    worst: str | None = None
    """Of a rule on slices: the worst one; of a gap the two between which it is."""
    slices: list[SliceAnswer] = []
    """Of such a rule: all of them."""


class Accepted(Record):
    """The human decision that let a challenger pass which cannot be compared with the champion."""

    champion: str
    by: str
    reason: str


class Verdict(Record):
    """`verdict.json`: whether the challenger is blessed, rule by rule."""

    blessed: bool
    """Both verdicts are good."""
    quality: bool
    """At least one rule on evaluation. and drift., and all of them passed."""
    serving: bool
    """The same for export. and benchmark."""
    champion: str | None
    """The version that was judged against, if there was one."""
    accepted: Accepted | None = None
    """None where no such decision was needed."""
    rules: list[RuleOutcome]


class Compared(Record):
    """The champion and the challenger on the same rows."""

    rows: int
    units: int
    """What is scored: rows, of ner their words, of multilabel their labels."""
    better: int
    """Units that the challenger alone answers rightly."""
    worse: int
    """Units that the champion alone answers rightly."""
    champion: dict[str, float]
    challenger: dict[str, float]
    gain: Metrics
    """Challenger minus champion, paired; positive is better for every metric."""


class Flip(Record):
    """A unit of a test row that one of the two answers rightly and the other wrongly."""

    id: str
    unit: str | None
    """Of multilabel the label, of ner the word and its place in the text; None where rows have one answer."""
    true: str
    champion: str
    """Its answer."""
    champion_probability: float
    """That it gave to its answer."""
    challenger: str
    challenger_probability: float


class Flips(Record):
    """Units whose answer is another one now; the first of them, the most confident new answers first."""

    count: int
    shown: list[Flip]


class Against(Record):
    """`against.json`: the challenger against the champion."""

    champion: str
    metric: str
    """The headline metric."""
    confidence: float
    """Coverage of the intervals."""
    overall: Compared
    power: Power | None
    """Of the headline metric's gain, for a rule that asks for no loss at all; None where there is one group."""
    per_class: dict[str, dict[str, Versus]]
    """Label → precision, recall, f1 → both, and the label's rows, of ner its entities."""
    slices: dict[str, dict[str, Compared]]
    """As `slices` of the evaluation; modalities are the patterns in which rows hold them."""
    better: Flips
    """From wrong to right."""
    worse: Flips
    """From right to wrong."""
