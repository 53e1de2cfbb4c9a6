"""The gate: rules and evidence in, two verdicts out. What cannot be answered refuses.

Rules on evaluation. and drift. give the verdict on quality, those on export., rehearse. and benchmark. that on
serving; a blessing needs both, and neither can be had without a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from fuseline.config import COMPARED, QUALITY, SERVING, Acceptance, Rule
from fuseline.evaluation.answers import bound_of, meets, one_sided, outcome, percent, refuse, wave_through
from fuseline.evaluation.intervals import doubt
from fuseline.evaluation.lookup import find_estimate, look_up
from fuseline.evaluation.margins import Comparison, answer_margin
from fuseline.evaluation.sliced import answer_slices
from fuseline.records import NOT_MEASURED, Accepted, Kind, RuleOutcome, Verdict


def judge(
    rules: Sequence[Rule], evidence: Mapping[str, Any], comparison: Comparison | None,
    accepts: Acceptance | None = None,
) -> Verdict:  # fmt: skip
    """Answer every rule; blessed are those that pass them all, and without rules of both kinds nobody is.

    Args:
        evidence: the records `evaluation`, `export`, `rehearse` and `benchmark` as JSON documents, and the numbers of
            `drift`.
        comparison: None while there is no champion.
        accepts: a human decision on a champion that cannot be compared.
    """
    accepted = _accept(accepts, comparison)
    outcomes = [answer(rule, evidence, comparison, accepted) for rule in rules]
    kinds: tuple[Kind, ...] = get_args(Kind)
    outcomes += [_no_rule(kind) for kind in kinds if not any(outcome.kind == kind for outcome in outcomes)]
    quality, serving = (all(one.passed for one in outcomes if one.kind == kind) for kind in kinds)
    return Verdict(
        blessed=quality and serving, quality=quality, serving=serving,
        champion=comparison.version if comparison else None,
        accepted=accepted if any(one.answer == "incomparable" for one in outcomes) else None, rules=outcomes,
    )  # fmt: skip


def _accept(accepts: Acceptance | None, comparison: Comparison | None) -> Accepted | None:
    if accepts is None or comparison is None or accepts.champion != comparison.version:
        return None
    return Accepted(champion=accepts.champion, by=accepts.by, reason=accepts.reason)


def _no_rule(kind: Kind) -> RuleOutcome:
    names = " or ".join(QUALITY if kind == "quality" else SERVING)
    return RuleOutcome(
        name=f"at least one rule on {kind}", metric="gate", kind=kind, answer="failed", passed=False, value=0,
        bound="≥ 1", why=f"params.yaml has no gate rule on {names}, and no rule means no blessing",
    )  # fmt: skip


def answer(
    rule: Rule, evidence: Mapping[str, Any], comparison: Comparison | None, accepted: Accepted | None = None
) -> RuleOutcome:
    """Answer one rule."""
    benchmark = evidence.get("benchmark") or {}
    if why := _why_not_measured(rule, benchmark):
        return refuse(rule, why)
    if rule.metric.startswith("drift.") and comparison is None:
        return wave_through(rule)
    value, problem = look_up(evidence, rule.metric)
    if value is None:  # without a champion too: a name that means nothing must not pass the first time
        return refuse(rule, problem)
    if rule.margin is not None:
        return answer_margin(rule, comparison, accepted)
    if rule.slice is not None:
        return answer_slices(rule, rule.slice, evidence)
    found = _answer_bound(rule, value, evidence)
    return (
        _with_conditions(found, benchmark, _side_of(rule, benchmark)) if rule.metric.startswith("benchmark.") else found
    )


def _answer_bound(rule: Rule, value: float, evidence: Mapping[str, Any]) -> RuleOutcome:
    estimate = find_estimate(evidence, rule.metric)
    found: dict[str, Any] = {"value": value, "interval": estimate, "rows": _rows_of(rule, evidence)}
    held, what = value, f"{value:.6g}"
    if rule.confidence is not None:
        if why := doubt(estimate):
            return refuse(rule, f"how sure {rule.metric} is cannot be told: {why}", **found)
        held = one_sided(rule, estimate, rule.confidence)
        side = "at most" if rule.max is not None else "at least"
        what = f"{value:.4f} is {side} {held:.4f} at {percent(rule.confidence)}, which"
        found["held"] = held
    passed = meets(rule, held)
    why = f"{what} {'meets' if passed else 'misses'} the bound {bound_of(rule)}"
    return outcome(rule, "passed" if passed else "failed", why, **found)


def _rows_of(rule: Rule, evidence: Mapping[str, Any]) -> int | None:
    """Return how many rows a number is of; members are measured on those that they see."""
    rows = evidence["evaluation"].get("rows") if rule.metric.startswith(COMPARED) else None
    return rows if isinstance(rows, int) else None


RATIOS = {"faster", "graph_faster"}
"""Parts of a benchmark that hold the bundle against another side."""
FLATTERED = RATIOS | {"roofline", "ceilings"}
"""Parts of a benchmark that contention may make better; times it only makes longer, so that what passes stands."""


def _why_not_measured(rule: Rule, benchmark: Mapping[str, Any]) -> str:
    """Say why the benchmark has no number for a rule though it has one of that name; nothing where it may be asked."""
    steps, side = rule.metric.split("."), _side_of(rule, benchmark)
    sides = [side, benchmark] if RATIOS & {*steps} else [side]
    elsewhere = next((one for one in sides if not one.get("gpu")), None)
    if rule.device == "gpu" and elsewhere is not None:
        return f"asks for a GPU's number, but this is: {elsewhere.get('device', 'no benchmark')}"
    if not rule.metric.startswith("benchmark."):
        return ""
    if FLATTERED & {*steps} and not benchmark.get("valid", True):
        return f"the benchmark is not valid: {benchmark['invalid_because']}; measure again on a quiet machine"
    if rule.metric.endswith(".p99_ms") and look_up({"benchmark": benchmark}, rule.metric)[1].endswith("not a number"):
        return f"{rule.metric} was {NOT_MEASURED}"
    return ""


def _side_of(rule: Rule, benchmark: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the benchmark has of the side that a rule is on: one may run where another does not."""
    _, *steps = rule.metric.split(".")
    others: Mapping[str, Mapping[str, Any]] = benchmark.get("others", {})
    if steps[:1] == ["beside"]:
        return others.get((benchmark.get("beside") or {}).get("system", ""), {})
    if steps[:1] != ["others"]:
        return benchmark
    return others.get(steps[1], {}) if len(steps) > 1 else {}


def _with_conditions(outcome: RuleOutcome, benchmark: Mapping[str, Any], side: Mapping[str, Any]) -> RuleOutcome:
    """Say what a speed was measured on; of one that misses its bound, whether others were in the way."""
    told = side["device"]
    if not outcome.passed and not benchmark.get("valid", True) and not outcome.metric.endswith("_bytes"):
        told += f"; not valid, for {benchmark['invalid_because']}: measure again on a quiet machine"
    return outcome.model_copy(update={"why": f"{outcome.why} ({told})"})
