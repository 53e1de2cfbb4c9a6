"""Rules with a margin to the champion, on the same test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fuseline.config import Rule, Slices
from fuseline.evaluation.answers import TOLERANCE, meets, one_sided, outcome, percent, refuse, wave_through
from fuseline.evaluation.intervals import doubt, mcnemar, power, student, tango
from fuseline.evaluation.sliced import Part, answer_parts, too_small
from fuseline.records import Accepted, Against, Compared, Estimate, Forgetting, Power, RuleOutcome


@dataclass(frozen=True)
class Comparison:
    """The challenger against the champion on the same test rows."""

    version: str
    against: Against | None
    """None where the two cannot be asked the same."""
    why_not: str = ""
    """Why a margin between the two means nothing, if so."""
    forgetting: Forgetting | None = None
    """On old rows and on new ones; None where the two cannot be asked the same."""


def answer_margin(rule: Rule, comparison: Comparison | None, accepted: Accepted | None) -> RuleOutcome:
    """Answer a rule with a margin.

    Args:
        comparison: None while there is no champion.
        accepted: a human decision on this champion.
    """
    if comparison is None:
        return wave_through(rule)
    if comparison.why_not or comparison.against is None:
        return _answer_incomparable(rule, comparison, accepted)
    if rule.slice is not None:
        return _answer_by_slice(rule, rule.slice, comparison.against)
    return _answer_overall(rule, comparison.against)


def _answer_incomparable(rule: Rule, comparison: Comparison, accepted: Accepted | None) -> RuleOutcome:
    decision = f"{accepted.by} accepted that: {accepted.reason}" if accepted else (
        "to publish all the same, record who decides so and why as publish.accept_incomparable, for champion "
        f"{comparison.version}"
    )  # fmt: skip
    why = f"champion {comparison.version} {comparison.why_not}, so it cannot be compared; {decision}"
    return outcome(rule, "incomparable", why).model_copy(update={"passed": accepted is not None})


def _answer_overall(rule: Rule, against: Against) -> RuleOutcome:
    compared = against.overall
    gain, problem = _gain(rule, compared)
    if gain is None:
        return refuse(rule, problem)
    found: dict[str, Any] = {"value": gain.value, "interval": gain, "rows": compared.rows, "gain": gain}
    if rule.confidence is not None and (why := doubt(gain)):
        return refuse(rule, f"how sure the gain is cannot be told: {why}", **found)
    found["power"] = _power(rule, [(compared, gain)], against)
    if why := _cannot_tell(rule, found["power"], compared.rows):
        return refuse(rule, why, **found)
    held = _held_gain(rule, compared, gain, rule.confidence)
    passed = meets(rule, held)
    why = _tell_gain(rule, gain, held, against, passed) + tell_power(found["power"])
    held_apart = None if rule.confidence is None else held
    return outcome(rule, "passed" if passed else "failed", why, held=held_apart, **found)


def _gain(rule: Rule, compared: Compared) -> tuple[Estimate | None, str]:
    metric = rule.metric.rpartition(".")[2]
    gain = compared.gain.get(metric)
    if gain is None or not math.isfinite(gain.value):
        system = ".".join(rule.metric.split(".")[:2])
        return None, (
            f"{rule.metric} cannot be compared with a champion; expected {system}. and one of "
            f"{', '.join(compared.gain)}"
        )
    return gain, ""


def _held_gain(rule: Rule, compared: Compared, gain: Estimate, confidence: float | None) -> float:
    """Return what is held against the margin: the gain, or its lower bound."""
    if confidence is None:
        return gain.value
    if rule.test == "bootstrap":
        return one_sided(rule, gain, confidence)
    assert gain.groups is not None
    times = design_effect(compared, gain)
    z = student(gain.groups, confidence)
    return tango(compared.better / times, compared.worse / times, compared.rows / times, z)[0]


def design_effect(compared: Compared, gain: Estimate) -> float:
    """Return how many rows count as one, as rows of a group resemble each other (Kish 1965); at least 1."""
    assert gain.standard_error is not None
    rows, better, worse = compared.rows, compared.better, compared.worse
    singly = (better + worse - (better - worse) ** 2 / rows) / rows**2
    return max(1.0, gain.standard_error**2 / singly) if singly and gain.groups != rows else 1.0


def _power(rule: Rule, compared: Sequence[tuple[Compared, Estimate]], against: Against) -> Power | None:
    """Say what the rule can tell of gains on these rows, or in these slices of them."""
    assert rule.margin is not None
    stretches = [_stretch(rule, each, gain) for each, gain in compared]
    gains, rows = [gain for _, gain in compared], sum(each.rows for each, _ in compared)
    return power(gains, rule.margin, rule.confidence, against.confidence, rows, rule.power, stretches)


def _stretch(rule: Rule, compared: Compared, gain: Estimate) -> float:
    """Return how many times as wide as Student's t the test's interval of two equal models is."""
    if rule.test == "bootstrap" or rule.confidence is None or not gain.standard_error or gain.groups is None:
        return 1.0
    times, flipped = design_effect(compared, gain), compared.better + compared.worse
    z = student(gain.groups, rule.confidence)
    if not z:
        return 1.0
    low, _ = tango(flipped / 2 / times, flipped / 2 / times, compared.rows / times, z)
    return -low / (z * gain.standard_error)


def _cannot_tell(rule: Rule, told: Power | None, rows: int) -> str:
    """Say so where the test split is smaller than the rule asks; empty where it is not."""
    if rule.power is None:
        return ""
    if told is None:
        return "cannot tell: all rows are of one group"
    if told.equal_passes >= rule.power - TOLERANCE:
        return ""
    enough = "no number of rows is" if told.needed_rows is None else f"about {told.needed_rows:,} rows of this kind are"
    return (
        "cannot tell: a model as good as the champion would pass with a probability of "
        f"{told.equal_passes:.2f} on these {rows:,} rows, and the rule asks for {rule.power:g}; {enough} enough"
    )


def _tell_gain(rule: Rule, gain: Estimate, held: float, against: Against, passed: bool) -> str:
    short = f"{'at least' if passed else 'below'} {rule.margin:+g}"
    found = f"gain over champion {against.champion} is {gain.value:+.4f}{gain.brackets('+.4f')}"
    if rule.confidence is not None:
        found += f", at least {held:+.4f} at {percent(rule.confidence)}"
    return f"{found}, {short}{_tell_test(rule, against)}"


def _tell_test(rule: Rule, against: Against) -> str:
    if rule.test != "mcnemar":
        return ""
    better, worse = against.overall.better, against.overall.worse
    return (
        f" ({better:,} newly right, {worse:,} newly wrong; Tango's score interval, McNemar's exact p "
        f"{mcnemar(better, worse):.3f})"
    )


def tell_power(told: Power | None) -> str:
    """Say what these rows could have shown, as the rest of a sentence; empty where that cannot be told."""
    if told is None:
        return ""
    if not told.standard_error:
        return "; both answer alike"
    worse = f", one worse by {told.worse:g} with {told.worse_passes:.2f}" if told.worse else ""
    return (
        f"; a true difference of {told.visible:.3f} would have shown, an equal model passes with a probability of "
        f"{told.equal_passes:.2f}{worse}"
    )


def _answer_by_slice(rule: Rule, slices: Slices, against: Against) -> RuleOutcome:
    gains: dict[str, tuple[Compared, Estimate]] = {}
    for name, compared in against.slices.get(slices.by, {}).items():
        gain, problem = _gain(rule, compared)
        if gain is None:
            return refuse(rule, f"slice {name}: {problem}")
        gains[name] = compared, gain
    large = {name: each for name, each in gains.items() if each[0].rows >= slices.min_rows}
    small = [too_small(name, each.rows, gain) for name, (each, gain) in gains.items() if name not in large]
    told, rows = _power(rule, list(large.values()), against), sum(each.rows for each, _ in large.values())
    if large and (why := _cannot_tell(rule, told, rows)):
        return refuse(rule, why, power=told, rows=rows, slices=small)
    parts = [
        Part(name, compared.rows, gain, partial(_held_gain, rule, compared, gain))
        for name, (compared, gain) in large.items()
    ]
    found = answer_parts(rule, slices, parts, small)
    return found.model_copy(update={"power": told, "why": f"{found.why}{tell_power(told)}"})
