"""What must hold before a bundle is published, and under which name: sections gate and publish."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fuseline.config.base import Count, Name, Section, Weight
from fuseline.config.evaluation import Cut
from fuseline.records import Kind


class Slices(Section):
    """The parts of the test split in each of which a rule is to hold."""

    by: Cut
    """One of evaluate.slices."""
    min_rows: Count
    """Smaller slices are listed and not judged; where no slice is large enough, the rule refuses."""


QUALITY, SERVING = ("evaluation.", "drift."), ("export.", "rehearse.", "benchmark.")
"""What the metrics of the two kinds of rules begin with."""
COMPARED = ("evaluation.ensemble.", "evaluation.student.")
"""What a champion is compared in, and slices have numbers of."""
DRIFTS = ("labels", "modalities", "text_length")
"""Of the whole data set, how far it has moved from what the champion's held."""


class Rule(Section):
    """One condition for the blessing; a rule without a number refuses."""

    name: str
    metric: str
    """Dotted path into evaluation, drift, export, rehearse or benchmark, for example evaluation.ensemble.accuracy."""
    min: float | None = None
    max: float | None = None
    margin: float | None = None
    """Least allowed difference to the champion on the same rows (higher is better)."""
    gap: Weight | None = None
    """Largest allowed difference between any two slices."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """The bound of the one-sided interval with this coverage must meet the rule; null asks the estimate alone. With a
    margin this is a test of non-inferiority. It refuses where the test rows are of fewer than 20 groups, or where one
    of the labels that a metric is a mean over is in fewer than 10."""
    test: Literal["bootstrap", "mcnemar"] = "bootstrap"
    """Of a margin with a confidence. mcnemar: Tango's score interval of the difference of paired shares, which at a
    margin of 0 is McNemar's test, and keeps its level better on few rows; for the accuracy of a classification."""
    power: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of a margin: probability with which a model as good as the champion has to pass; where the test split is too
    small for that, the rule refuses, as it could not tell."""
    slice: Slices | None = None
    """The rule has to hold in each of these slices, at its confidence in all of them together (Holm 1979)."""
    device: Literal["any", "gpu"] = "any"
    """gpu: the number counts only if a GPU gave it."""

    @property
    def kind(self) -> Kind:
        """What the rule is a rule of."""
        return "serving" if self.metric.startswith(SERVING) else "quality"

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if sum(bound is not None for bound in (self.min, self.max, self.margin, self.gap)) != 1:
            raise ValueError("set exactly one of min, max, margin and gap")
        if not self.metric.startswith((*QUALITY, *SERVING)):
            expected = ", ".join((*QUALITY, *SERVING))
            raise ValueError(f"metric: {self.metric!r} begins with none of {expected}")
        if self.metric.startswith("drift.") and self.metric.removeprefix("drift.") not in DRIFTS:
            raise ValueError(f"metric: {self.metric!r}: drift has {', '.join(DRIFTS)}")
        if self.margin is not None and not self.metric.startswith(COMPARED):
            raise ValueError(
                "a margin compares evaluation.ensemble. metrics, or evaluation.student. ones, with the champion's, not "
                f"{self.metric!r}"
            )
        return self

    @model_validator(mode="after")
    def _has_what_its_bound_goes_by(self) -> Self:
        if self.margin is None and (self.power is not None or self.test != "bootstrap"):
            raise ValueError("power and test are of rules with a margin; remove them")
        if self.test == "mcnemar" and (self.confidence is None or not self.metric.endswith(".accuracy")):
            raise ValueError("test: mcnemar takes a confidence, and the metric accuracy")
        if self.gap is not None and self.slice is None:
            raise ValueError("a gap is one between slices; set slice")
        if self.slice is not None and not self.metric.startswith(COMPARED):
            raise ValueError(f"slice: slices have {' and '.join(COMPARED)} metrics, not {self.metric!r}")
        if self.confidence is not None and not self.metric.startswith("evaluation."):
            raise ValueError(f"confidence: {self.metric!r} has no interval; evaluation. metrics have")
        return self


class Acceptance(Section):
    """Somebody's word that a challenger may be published though it cannot be compared with the champion."""

    champion: Annotated[str, Field(min_length=1)]
    """The version that this holds for, and for no other: with the next champion it is void."""
    by: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]


class Publish(Section):
    """The champion's registration."""

    name: Name
    """Name of the GTO artifact: versions are tagged NAME@v1.0.0."""
    remote: str | None
    """Git remote that branches and tags are pushed to as well, for example origin; null keeps them here.
    A run on uncommitted edits pushes their snapshot too, new files included."""
    accept_incomparable: Acceptance | None
    """A human decision: where the champion has other labels, modalities or another task, and margins to it cannot be
    found, they do not refuse. It goes into verdict.json and the report. null as long as nobody took one."""
