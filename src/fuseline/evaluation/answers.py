"""What answers to rules are made of, and how they are put."""

from __future__ import annotations

import math
from typing import Any

from fuseline.config import Rule
from fuseline.evaluation.intervals import bound
from fuseline.records import Answer, Estimate, RuleOutcome

TOLERANCE = 1e-9
"""0.72 - 0.70 falls short of 0.02 in floats: a bound counts as met within this much."""


def meets(rule: Rule, held: float) -> bool:
    """Tell whether a number is on the good side of the rule's bound."""
    least = next((one for one in (rule.min, rule.margin) if one is not None), -math.inf)
    most = next((one for one in (rule.max, rule.gap) if one is not None), math.inf)
    return least - TOLERANCE <= held <= most + TOLERANCE


def one_sided(rule: Rule, estimate: Estimate | None, confidence: float) -> float:
    """Return the bound of the interval that is nearer to the rule's; of an estimate of more than one group."""
    found = None if estimate is None else bound(estimate, confidence, rule.max is not None or rule.gap is not None)
    assert found is not None
    return found


def bound_of(rule: Rule) -> str:
    """Put the bound into words."""
    if rule.min is not None:
        return f"≥ {rule.min:,.10g}"
    if rule.max is not None:
        return f"≤ {rule.max:,.10g}"
    if rule.gap is not None:
        return f"gap ≤ {rule.gap:,.10g}"
    return f"≥ champion {rule.margin:+g}"


def percent(confidence: float | None) -> str:
    """Put a confidence into words."""
    assert confidence is not None
    return f"{100 * confidence:.4g} %"


def outcome(rule: Rule, answer: Answer, why: str, value: float | None = None, **found: Any) -> RuleOutcome:
    """Give an answer; what was found stands under the names of its record."""
    return RuleOutcome(
        name=rule.name, metric=rule.metric, kind=rule.kind, answer=answer, passed=answer == "passed", value=value,
        bound=bound_of(rule), why=why, **found,
    )  # fmt: skip


def refuse(rule: Rule, why: str, **found: Any) -> RuleOutcome:
    """Say why there is no answer."""
    return outcome(rule, "not answered", why, **found)


def wave_through(rule: Rule) -> RuleOutcome:
    """Let a rule pass that asks for a champion where there is none."""
    return outcome(rule, "passed", "there is no champion yet to compare with")
