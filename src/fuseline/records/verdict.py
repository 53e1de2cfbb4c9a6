"""The gate: rules, what is decided, against whom."""

from __future__ import annotations

from typing import Literal

from fuseline.records.base import Kind, Record
from fuseline.records.evaluation import Estimate, Metrics, Versus

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
    """The same for export., rehearse. and benchmark."""
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
