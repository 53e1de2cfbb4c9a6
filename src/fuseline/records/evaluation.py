"""Evaluation: metrics with intervals, classes, slices, calibration, tuning."""

from __future__ import annotations

from fuseline.records.base import Count, Record, System


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
