"""The gate: rules and evidence in, a verdict out. What cannot be answered refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuseline.config import Rule
from fuseline.records import Forgetting, Metrics, RuleOutcome, Verdict

COMPARED = ("evaluation.ensemble.", "evaluation.student.")
TOLERANCE = 1e-9
"""0.72 - 0.70 falls short of 0.02 in floats: a bound counts as met within this much."""


@dataclass(frozen=True)
class Comparison:
    """The challenger against the champion on the same test rows."""

    version: str
    gain: Metrics | None
    """Challenger minus champion, positive is better; None where the two cannot be compared."""
    why_not: str = ""
    forgetting: Forgetting | None = None
    """On old rows and on new ones; None where the two cannot be asked the same."""


def judge(rules: Sequence[Rule], evidence: Mapping[str, Any], comparison: Comparison | None) -> Verdict:
    """Answer every rule; blessed are those that pass them all, and an empty list blesses nobody.

    Args:
        evidence: the records `evaluation`, `export` and `benchmark` as JSON documents.
        comparison: None while there is no champion.
    """
    outcomes = [answer(rule, evidence, comparison) for rule in rules]
    if not outcomes:
        outcomes = [
            _outcome(
                Rule(name="at least one rule", metric="gate", min=1),
                0,
                "≥ 1",
                False,
                "params.yaml has no gate rules, and no rule means no blessing",
            )
        ]
    return Verdict(
        blessed=all(outcome.passed for outcome in outcomes),
        champion=comparison.version if comparison else None,
        rules=outcomes,
    )


def answer(rule: Rule, evidence: Mapping[str, Any], comparison: Comparison | None) -> RuleOutcome:
    """Answer one rule."""
    if rule.device == "gpu" and not (evidence.get("benchmark") or {}).get("gpu"):
        device = (evidence.get("benchmark") or {}).get("device", "no benchmark")
        return _outcome(rule, None, _bound(rule), False, f"asks for a GPU's number, but this is: {device}")
    if rule.margin is not None:
        return _answer_margin(rule, look_up(evidence, rule.metric), comparison)
    value, problem = look_up(evidence, rule.metric)
    if rule.metric.startswith("benchmark.") and value is not None:
        return _with_device(_compare(rule, value), evidence["benchmark"]["device"])
    if value is None:
        return _outcome(rule, None, _bound(rule), False, problem)
    return _compare(rule, value)


def _answer_margin(rule: Rule, found: tuple[float | None, str], comparison: Comparison | None) -> RuleOutcome:
    assert rule.margin is not None
    value, problem = found
    if value is None:  # without a champion too: a name that means nothing must not pass the first time
        return _outcome(rule, None, _bound(rule), False, problem)
    metric = rule.metric.rpartition(".")[2]
    if comparison is None:
        return _outcome(rule, None, _bound(rule), True, "there is no champion yet to compare with")
    if comparison.gain is None:
        return _outcome(rule, None, _bound(rule), False, comparison.why_not)
    gain = comparison.gain.get(metric)
    if gain is None or not math.isfinite(gain.value):
        return _outcome(
            rule,
            None,
            _bound(rule),
            False,
            f"{rule.metric} cannot be compared with a champion; "
            f"expected {COMPARED[0]} and one of {', '.join(comparison.gain)}",
        )
    passed = gain.value >= rule.margin - TOLERANCE
    why = (
        f"gain over champion {comparison.version} is {gain.value:+.4f} "
        f"[{gain.low:+.4f}, {gain.high:+.4f}], {'at least' if passed else 'below'} {rule.margin:+g}"
    )
    return _outcome(rule, gain.value, _bound(rule), passed, why).model_copy(update={"gain": gain})


def look_up(evidence: Mapping[str, Any], path: str) -> tuple[float | None, str]:
    """Return the finite number at a dotted path, or None and why there is none."""
    node: Any = evidence
    for step in path.split("."):
        if not isinstance(node, Mapping) or step not in node:
            options = ", ".join(sorted(node)) if isinstance(node, Mapping) else "nothing below it"
            return None, f"there is no {path}: {step!r} was not found among {options}"
        node = node[step]
    if isinstance(node, Mapping) and "value" in node:
        node = node["value"]
    if isinstance(node, bool) or not isinstance(node, int | float):
        return None, f"{path} is not a number"
    if not math.isfinite(node):
        return None, f"{path} is {node}, not a finite number"
    return float(node), ""


def _with_device(outcome: RuleOutcome, device: str) -> RuleOutcome:
    return outcome.model_copy(update={"why": f"{outcome.why} ({device})"})


def _compare(rule: Rule, value: float) -> RuleOutcome:
    low = -math.inf if rule.min is None else rule.min
    high = math.inf if rule.max is None else rule.max
    passed = low - TOLERANCE <= value <= high + TOLERANCE
    why = f"{value:.6g} {'meets' if passed else 'misses'} the bound {_bound(rule)}"
    return _outcome(rule, value, _bound(rule), passed, why)


def _bound(rule: Rule) -> str:
    if rule.min is not None:
        return f"≥ {rule.min:,.10g}"
    if rule.max is not None:
        return f"≤ {rule.max:,.10g}"
    return f"≥ champion {rule.margin:+g}"


def _outcome(rule: Rule, value: float | None, bound: str, passed: bool, why: str) -> RuleOutcome:
    return RuleOutcome(name=rule.name, metric=rule.metric, value=value, bound=bound, passed=passed, why=why)
