"""What the ensemble looks at, and rows worth a second look."""

from __future__ import annotations

from typing import Any

from fuseline.records.base import Record
from fuseline.records.evaluation import Metrics


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
