"""The bundle: what it holds, and how far it is from torch."""

from __future__ import annotations

from pydantic import ConfigDict

from fuseline.records.base import Record, Variant
from fuseline.records.training import Transitions


class Agreement(Record):
    """How far a graph is from the torch ensemble, on real rows."""

    rows: int
    batch_sizes: list[int]
    max_logit_difference: float
    relative_logit_difference: float
    """The same as a share of the largest logit, by its amount."""
    argmax_agreement: float
    """Share of rows, of ner of words, with the same predicted class; of multilabel of labels, given by both or by none,
    by their thresholds."""
    evaluation_agreement: float
    """The same share, for the graph and what was evaluated."""


class Exported(Agreement):
    """One way in which the graph was written."""

    nodes: int
    model_bytes: int
    operators: dict[str, int]
    """What was done to the graph of standard operators: fusions, or operators in fewer bits, by kind."""
    value: float
    """The headline metric on the test rows."""
    drop: float
    """How much that is less than what was evaluated in torch."""


class Parity(Agreement):
    """`parity.json`: of the graph in single precision, and beside it each way in which it was written."""

    evaluation_agreement: float
    """Of the variant that the bundle holds."""
    metric: str
    """The headline metric."""
    drop: float
    """Of the variant that the bundle holds."""
    published: Variant
    """What the bundle holds, which is published if the gate passes."""
    traced_nodes: int
    """Of the graph as torch's exporter wrote it."""
    variants: dict[Variant, Exported]
    dropped: dict[Variant, str] = {}
    """Variants that were asked for and can never be published, each with the reason."""


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
    variant: Variant = "fp32"
    versions: dict[str, str]
    data: str
    """sha256 of the data set's manifest."""
    code: str
    """sha256 over the package's sources."""
    files: dict[str, BundleFile]
