"""Training: where members start, how they went, how they are combined."""

from __future__ import annotations

from typing import Any

from fuseline.records.base import Count, FileName, Record


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
