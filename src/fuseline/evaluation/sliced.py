"""Rules that have to hold in slices of the test rows, and the gap between slices.

With a confidence the rule has to hold in all slices at once: Holm's procedure says how sure each has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from fuseline.config import Rule, Slices
from fuseline.evaluation.answers import TOLERANCE, bound_of, meets, one_sided, outcome, percent, refuse
from fuseline.evaluation.intervals import bound, doubt, holm
from fuseline.evaluation.lookup import find_estimate
from fuseline.records import Estimate, RuleOutcome, SliceAnswer


@dataclass(frozen=True)
class Part:
    """A slice that is judged."""

    name: str
    rows: int
    estimate: Estimate
    hold: Callable[[float | None], float]
    """From a confidence to what is held against the bound."""


def answer_slices(rule: Rule, slices: Slices, evidence: Mapping[str, Any]) -> RuleOutcome:
    """Answer a rule with min, max or gap on the evaluation's slices."""
    _, system, metric = rule.metric.split(".", 2)
    found = (evidence["evaluation"].get("slices") or {}).get(slices.by)
    if not found:
        return refuse(rule, f"the evaluation has no slices by {slices.by}: {_options(evidence)}")
    parts, small = [], []
    for name, each in found.items():
        estimate = find_estimate({"it": each}, f"it.{system}.{metric}")
        if estimate is None:
            return refuse(rule, f"slice {name} has no finite {system}.{metric}")
        if each["rows"] < slices.min_rows:
            small.append(too_small(name, each["rows"], estimate))
        else:
            hold = partial(_hold, rule, estimate)
            parts.append(Part(name, each["rows"], estimate, hold))
    if rule.gap is not None:
        coverage = evidence["evaluation"]["confidence"]
        return _answer_gap(rule, slices, parts, small, coverage)
    return answer_parts(rule, slices, parts, small)


def _options(evidence: Mapping[str, Any]) -> str:
    return f"expected one of {', '.join(evidence['evaluation'].get('slices') or {}) or 'none'}"


def _hold(rule: Rule, estimate: Estimate, confidence: float | None) -> float:
    return estimate.value if confidence is None else one_sided(rule, estimate, confidence)


def too_small(name: str, rows: int, estimate: Estimate | None) -> SliceAnswer:
    """List a slice that is not judged."""
    return SliceAnswer(slice=name, rows=rows, answer="too small", estimate=estimate, held=None, confidence=None)


def answer_parts(rule: Rule, slices: Slices, parts: list[Part], small: list[SliceAnswer]) -> RuleOutcome:
    """Hold the rule in each slice."""
    if not parts:
        return refuse(rule, none_is_large(slices, small), slices=small)
    if why := _doubt(rule, parts):
        return refuse(rule, why, slices=small)
    answers = _answer_each(rule, parts)
    worst = min(answers, key=lambda one: (_distance(rule, one.held), one.slice))
    assert worst.estimate is not None
    passed = all(one.answer == "passed" for one in answers)
    return outcome(
        rule, "passed" if passed else "failed", _tell_parts(rule, slices, worst, answers, small),
        value=worst.estimate.value, held=None if rule.confidence is None else worst.held, interval=worst.estimate,
        rows=worst.rows, worst=worst.slice, slices=answers + small,
    )  # fmt: skip


def _answer_each(rule: Rule, parts: Sequence[Part]) -> list[SliceAnswer]:
    """Answer slice by slice; with a confidence what is less clear than one that failed fails too (Holm)."""
    standing = [_standing(rule, part.estimate) for part in parts]
    levels = [None] * len(parts) if rule.confidence is None else holm(standing, rule.confidence)
    answers: dict[str, SliceAnswer] = {}
    failed = False
    for _, part, level in sorted(zip(standing, parts, levels, strict=True), key=lambda one: -one[0]):
        held = part.hold(level)
        failed = not meets(rule, held) or (failed and level is not None)
        answers[part.name] = SliceAnswer(
            slice=part.name, rows=part.rows, answer="failed" if failed else "passed", estimate=part.estimate, held=held,
            confidence=level,
        )  # fmt: skip
    return [answers[part.name] for part in parts]


def _doubt(rule: Rule, parts: Sequence[Part]) -> str:
    """Say of the first slice of which nobody can tell how sure its number is; empty where there is none, or no need."""
    if rule.confidence is None:
        return ""
    doubts = ((part, doubt(part.estimate)) for part in parts)
    return next(
        (
            f"how sure slice {part.name} is cannot be told: {why}; with min_rows above {part.rows:,} it is not judged"
            for part, why in doubts if why
        ),
        "",
    )  # fmt: skip


def _standing(rule: Rule, estimate: Estimate) -> float:
    """Return how many standard errors an estimate is on the good side of the bound."""
    distance = _distance(rule, estimate.value)
    if not estimate.standard_error:
        return math.copysign(math.inf, distance + TOLERANCE)
    return distance / estimate.standard_error


def _distance(rule: Rule, value: float | None) -> float:
    """Return how far a value is on the good side of the bound."""
    assert value is not None
    if rule.max is not None:
        return rule.max - value
    least = rule.min if rule.min is not None else rule.margin
    assert least is not None
    return value - least


def none_is_large(slices: Slices, small: Sequence[SliceAnswer]) -> str:
    """Say that no slice has the rows to be judged."""
    largest = max((one.rows for one in small), default=0)
    return f"no slice by {slices.by} has {slices.min_rows:,} rows; the largest of {len(small)} has {largest:,}"


def _tell_parts(
    rule: Rule, slices: Slices, worst: SliceAnswer, answers: Sequence[SliceAnswer], small: Sequence[SliceAnswer]
) -> str:
    assert worst.estimate is not None
    failed = sum(one.answer == "failed" for one in answers)
    count = f"{failed} of {len(answers)} slices by {slices.by} {'miss' if failed != 1 else 'misses'} the bound"
    if not failed:
        count = f"all {len(answers)} slices by {slices.by} meet the bound"
    form = "+.4f" if rule.margin is not None else ".4f"
    value = f"{worst.estimate.value:{form}}{worst.estimate.brackets(form)}"
    told = f"{count} {bound_of(rule)}; the worst, {worst.slice}, has {value}"
    if worst.confidence is not None:
        told += (
            f", at {'most' if rule.max is not None else 'least'} {worst.held:{form}} at {percent(worst.confidence)} "
            f"(Holm's, for {percent(rule.confidence)} in all slices together)"
        )
    return f"{told}, on {worst.rows:,} rows{_tell_small(slices, small)}"


def _tell_small(slices: Slices, small: Sequence[SliceAnswer]) -> str:
    if not small:
        return ""
    have = "slice has" if len(small) == 1 else "slices have"
    return (
        f"; {len(small)} {have} fewer than {slices.min_rows:,} rows and {'is' if len(small) == 1 else 'are'} not judged"
    )


def _answer_gap(
    rule: Rule, slices: Slices, parts: list[Part], small: list[SliceAnswer], coverage: float
) -> RuleOutcome:
    """Hold the largest difference between any two slices against the bound.

    Its bounds are those of all pairs together (Bonferroni): the largest of many differences is large by chance alone.

    Args:
        coverage: of the reported interval.
    """
    if len(parts) < 2:
        return refuse(rule, f"a gap is between two slices; {none_is_large(slices, small)}", slices=small)
    if why := _doubt(rule, parts):
        return refuse(rule, why, slices=small)
    pairs = [_Pair(*sorted(pair, key=lambda part: -part.estimate.value)) for pair in combinations(parts, 2)]
    widest = max(pairs, key=lambda pair: pair.gap)
    low, high = _ends(pairs, (1 + coverage) / 2)
    interval = Estimate(value=widest.gap, low=low, high=high)
    held = widest.gap if rule.confidence is None else _ends(pairs, rule.confidence)[1]
    assert held is not None
    passed = meets(rule, held)
    judged = [
        SliceAnswer(slice=part.name, rows=part.rows, answer="passed" if passed else "failed", estimate=part.estimate,
                    held=None, confidence=None)
        for part in parts
    ]  # fmt: skip
    return outcome(
        rule, "passed" if passed else "failed",
        _tell_gap(rule, slices, widest, interval, held, passed, len(parts)) + _tell_small(slices, small),
        value=widest.gap, held=None if rule.confidence is None else held, interval=interval,
        rows=widest.high.rows + widest.low.rows, worst=f"{widest.high.name} and {widest.low.name}",
        slices=judged + small,
    )  # fmt: skip


@dataclass(frozen=True)
class _Pair:
    """Two slices, the better one first."""

    high: Part
    low: Part

    @property
    def gap(self) -> float:
        return self.high.estimate.value - self.low.estimate.value

    def bounds(self, confidence: float) -> tuple[float, float] | None:
        """Return the one-sided bounds of the difference of two independent estimates, from those of each.

        Source: Zou and Donner 2008, MOVER.
        """
        ends = [bound(part.estimate, confidence, upper) for part in (self.high, self.low) for upper in (False, True)]
        low, high, other_low, other_high = ends
        if low is None or high is None or other_low is None or other_high is None:
            return None
        one, other = self.high.estimate.value, self.low.estimate.value
        return self.gap - math.hypot(one - low, other_high - other), self.gap + math.hypot(
            high - one, other - other_low
        )


def _ends(pairs: Sequence[_Pair], confidence: float) -> tuple[float | None, float | None]:
    """Return between which bounds, each one-sided, the largest gap is; None where that cannot be told."""
    found = [pair.bounds(1 - (1 - confidence) / len(pairs)) for pair in pairs]
    there = [ends for ends in found if ends is not None]
    if len(there) < len(found):
        return None, None
    return max(0.0, *(low for low, _ in there)), max(high for _, high in there)


def _tell_gap(
    rule: Rule, slices: Slices, widest: _Pair, interval: Estimate, held: float, passed: bool, count: int
) -> str:
    values = " and ".join(f"{part.name} ({part.estimate.value:.4f})" for part in (widest.high, widest.low))
    sure = f", at most {held:.4f} at {percent(rule.confidence)} for all pairs together" if rule.confidence else ""
    return (
        f"{values} differ by {widest.gap:.4f}{interval.brackets('.4f')}{sure}, the most of {count} slices "
        f"by {slices.by}, {'within' if passed else 'above'} {rule.gap:g}"
    )
