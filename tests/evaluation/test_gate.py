"""The gate: what cannot be answered refuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from fuseline.config import Acceptance, Rule
from fuseline.evaluation.gate import answer, judge
from fuseline.evaluation.lookup import look_up
from fuseline.evaluation.margins import Comparison
from fuseline.records import Against, Compared, Estimate, Flips, RuleOutcome


def estimate(value: float, error: float | None = 0.02, share: bool = True, **keys: Any) -> dict[str, Any]:
    """Give an estimate; without an error all its rows are of one group."""
    rows = None if error is None or not share else value * (1 - value) / error**2
    low, high = (None, None) if error is None else (value - 2 * error, value + 2 * error)
    return {"value": value, "low": low, "high": high, "standard_error": error,
            "groups": 1 if error is None else 300, "effective_rows": rows} | keys  # fmt: skip


def part(rows: int, value: float, error: float | None = 0.02) -> dict[str, Any]:
    return {"rows": rows, "ensemble": {"accuracy": estimate(value, error)}, "student": None}


EVIDENCE: dict[str, Any] = {
    "evaluation": {
        "confidence": 0.95,
        "ensemble": {
            "accuracy": estimate(0.72), "ece": {"value": math.nan, "low": 0, "high": 1},
            "brier": estimate(0.2, 0.02, share=False), "alone": estimate(0.9, None),
            "few": estimate(0.9, groups=19), "enough": estimate(0.9, groups=20),
            "rare": estimate(0.9, rarest=9), "common": estimate(0.9, rarest=10),
        },
        "fusion_gain": {"accuracy": estimate(0.72 - 0.70, 0.01, share=False)},
        "labels": ["a", "b"],
        "rows": 100,
        "slices": {"label": {"a": part(100, 0.8), "b": part(40, 0.7), "c": part(9, 0.1)}, "source": {"x": part(2, 1)},
                   "meta.age": {"old": part(50, 0.9, None), "young": part(50, 0.8)}},
        "robustness": {"blurred": {"accuracy": estimate(0.6)}},
    },
    "drift": {"labels": 0.03},
    "export": {"max_logit_difference": 1e-5, "argmax_agreement": 1.0, "passed": True, "drop": 0.85 - 0.845},
    "benchmark": {"gpu": None, "device": "CPU, no GPU found", "model_bytes": 10, "peak_memory_bytes": 20,
                  "batches": {"batch_1": {"p95_ms": 12.0, "examples_per_second": 90.0}}},
}  # fmt: skip
ON_GPU = EVIDENCE | {"benchmark": EVIDENCE["benchmark"] | {"gpu": "NVIDIA H200", "device": "GPU: NVIDIA H200"}}
ACCURACY = "evaluation.ensemble.accuracy"
P95 = "benchmark.batches.batch_1.p95_ms"
BY_LABEL = {"by": "label", "min_rows": 30}


def rule(metric: str = ACCURACY, **keys: Any) -> Rule:
    return Rule(name="a rule", metric=metric, **keys)


def compared(
    gain: float, error: float | None = 0.01, rows: int = 400, better: int = 8, worse: int = 4, **keys: Any
) -> Compared:
    """Give a comparison whose gain has a standard error; None is that of one group."""
    found = Estimate.model_validate(estimate(gain, error, share=False, **keys))
    numbers = {"accuracy": 0.7}
    return Compared(rows=rows, units=rows, better=better, worse=worse, champion=numbers, challenger=numbers,
                    gain={"accuracy": found})  # fmt: skip


def champion(
    gain: float, error: float | None = 0.01, slices: dict[str, Compared] | None = None, **keys: Any
) -> Comparison:
    none = Flips(count=0, shown=[])
    against = Against(
        champion="v1.2.0", metric="accuracy", confidence=0.95, overall=compared(gain, error, **keys), power=None,
        per_class={}, slices={"label": slices or {}}, better=none, worse=none,
    )  # fmt: skip
    return Comparison("v1.2.0", against)


INCOMPARABLE = Comparison("v1.2.0", None, "knows other labels")

PASSES = {
    "a value above its minimum passes": (rule(min=0.7), EVIDENCE, None),
    "a value on its minimum passes": (rule(min=0.72), EVIDENCE, None),
    "a value below its maximum passes": (rule(P95, max=20), EVIDENCE, None),
    "a value on its maximum passes": (rule(P95, max=12), EVIDENCE, None),
    "0.72 - 0.70 meets a minimum of 0.02": (rule("evaluation.fusion_gain.accuracy", min=0.02), EVIDENCE, None),
    "a whole number is a number": (rule("evaluation.rows", min=100), EVIDENCE, None),
    "any device may answer by default": (rule(P95, max=20), ON_GPU, None),
    "a GPU's number answers a GPU's rule": (rule(P95, max=20, device="gpu"), ON_GPU, None),
    "throughput is a number": (rule("benchmark.batches.batch_1.examples_per_second", min=90), EVIDENCE, None),
    "memory is a number": (rule("benchmark.peak_memory_bytes", max=20), EVIDENCE, None),
    "size is a number": (rule("benchmark.model_bytes", max=10), EVIDENCE, None),
    "parity is a number": (rule("export.max_logit_difference", max=1e-4), EVIDENCE, None),
    "0.85 - 0.845 is a drop of at most 0.005": (rule("export.drop", max=0.005), EVIDENCE, None),
    "what scores better than torch drops nothing": (rule("export.drop", max=0), {"export": {"drop": -0.003}}, None),
    "robustness is a number": (rule("evaluation.robustness.blurred.accuracy", min=0.6), EVIDENCE, None),
    "a lower bound above the minimum passes": (rule(min=0.68, confidence=0.95), EVIDENCE, None),
    "twenty groups are enough for a bound": (
        rule("evaluation.ensemble.enough", min=0.8, confidence=0.95), EVIDENCE, None,
    ),
    "ten groups of each label are enough for a mean over them": (
        rule("evaluation.ensemble.common", min=0.8, confidence=0.95), EVIDENCE, None,
    ),
    "few groups still have an estimate": (rule("evaluation.ensemble.few", min=0.9), EVIDENCE, None),
    "an upper bound below the maximum passes": (
        rule("evaluation.ensemble.brier", max=0.235, confidence=0.95), EVIDENCE, None,
    ),
    "a margin passes while there is no champion": (rule(margin=0.05), EVIDENCE, None),
    "a gain above its margin passes": (rule(margin=-0.01), EVIDENCE, champion(0.0)),
    "a gain on its margin passes": (rule(margin=0.02), EVIDENCE, champion(0.72 - 0.70)),
    "a loss within a negative margin passes": (rule(margin=-0.01), EVIDENCE, champion(0.70 - 0.71)),
    "a gain whose lower bound is above the margin passes": (
        rule(margin=-0.02, confidence=0.95), EVIDENCE, champion(0.0),
    ),
    "two models that answer alike are of one quality": (
        rule(margin=0, confidence=0.95, power=0.9), EVIDENCE, champion(0.0, 0.0),
    ),
    "a test split that is large enough is judged": (rule(margin=-0.02, power=0.9), EVIDENCE, champion(-0.019)),
    "a score interval above the margin passes": (
        rule(margin=-0.01, confidence=0.95, test="mcnemar"), EVIDENCE, champion(0.01),
    ),
    "each slice that is large enough meets the minimum": (rule(min=0.7, slice=BY_LABEL), EVIDENCE, None),
    "each slice meets the margin": (
        rule(margin=-0.05, slice=BY_LABEL), EVIDENCE,
        champion(0, slices={"a": compared(0.1), "b": compared(-0.04), "c": compared(-0.5, rows=3)}),
    ),
    "a gap within its bound passes": (rule(gap=0.1, slice=BY_LABEL), EVIDENCE, None),
    "a small drift passes": (rule("drift.labels", max=0.05), EVIDENCE, champion(0)),
    "a drift passes while there is no champion": (rule("drift.labels", max=0.01), EVIDENCE, None),
}  # fmt: skip
FAILS = {
    "a value below its minimum is refused": (rule(min=0.73), EVIDENCE, None, "0.72 misses the bound ≥ 0.73"),
    "a value a hair below its minimum is refused": (rule(min=0.7200001), EVIDENCE, None, "misses"),
    "a value above its maximum is refused": (rule(P95, max=11.9), EVIDENCE, None, "12 misses the bound ≤ 11.9"),
    "a bound of NaN is met by nothing": (rule(min=math.nan), EVIDENCE, None, "misses"),
    "a lower bound below the minimum is refused": (
        rule(min=0.70, confidence=0.95), EVIDENCE, None,
        "0.7200 is at least 0.6859 at 95 %, which misses the bound ≥ 0.7",
    ),
    "an upper bound above the maximum is refused": (
        rule("evaluation.ensemble.brier", max=0.22, confidence=0.95), EVIDENCE, None,
        "0.2000 is at most 0.2330 at 95 %",
    ),
    "a gain below its margin is refused": (rule(margin=0.02), EVIDENCE, champion(0.0199), "below +0.02"),
    "a gain whose lower bound is below the margin is refused": (
        rule(margin=-0.015, confidence=0.95), EVIDENCE, champion(0.0), "at least -0.0165 at 95 %, below -0.015",
    ),
    "a score interval below the margin is refused": (
        rule(margin=0, confidence=0.95, test="mcnemar"), EVIDENCE, champion(0.01),
        "8 newly right, 4 newly wrong; Tango's score interval, McNemar's exact p 0.388",
    ),
    "one slice below the minimum refuses": (
        rule(min=0.75, slice=BY_LABEL), EVIDENCE, None, "1 of 2 slices by label misses the bound ≥ 0.75; the worst, b,",
    ),
    "one slice below the margin refuses": (
        rule(margin=-0.05, slice=BY_LABEL), EVIDENCE, champion(0, slices={"a": compared(0.1), "b": compared(-0.06)}),
        "the worst, b, has -0.0600",
    ),
    "a gap above its bound is refused": (
        rule(gap=0.09, slice=BY_LABEL), EVIDENCE, None, "a (0.8000) and b (0.7000) differ by 0.1000",
    ),
    "a gap whose upper bound is above its own is refused": (
        rule(gap=0.1, slice=BY_LABEL, confidence=0.9), EVIDENCE, None, "at 90 % for all pairs together",
    ),
    "a large drift is refused": (rule("drift.labels", max=0.02), EVIDENCE, champion(0), "0.03 misses the bound ≤ 0.02"),
}  # fmt: skip
NOT_ANSWERED = {
    "NaN meets no minimum": (rule("evaluation.ensemble.ece", min=0), EVIDENCE, None, "is nan, not a finite number"),
    "NaN meets no maximum": (rule("evaluation.ensemble.ece", max=1), EVIDENCE, None, "is nan, not a finite number"),
    "infinity meets no minimum": (
        rule("export.big", min=0), {"export": {"big": math.inf}}, None, "is inf, not a finite number",
    ),
    "a metric that is not there is refused": (
        rule("evaluation.ensemble.auc", min=0), EVIDENCE, None, "'auc' was not found among accuracy, alone, brier,",
    ),
    "a document that is not there is refused": (
        rule("export.loss", max=1), {"evaluation": {}}, None, "'export' was not found among evaluation",
    ),
    "a path beyond a number is refused": (rule("export.argmax_agreement.x", min=0), EVIDENCE, None, "nothing below it"),
    "a list is no number": (rule("evaluation.labels", min=0), EVIDENCE, None, "is not a number"),
    "a word is no number": (rule("benchmark.device", min=0), EVIDENCE, None, "is not a number"),
    "a truth value is no number": (rule("export.passed", min=0), EVIDENCE, None, "is not a number"),
    "null is no number": (rule("benchmark.gpu", min=0), EVIDENCE, None, "is not a number"),
    "a CPU's number does not answer a GPU's rule": (
        rule(P95, max=20, device="gpu"), EVIDENCE, None, "asks for a GPU's number, but this is: CPU, no GPU found",
    ),
    "no benchmark does not answer a GPU's rule": (
        rule(P95, max=20, device="gpu"), {}, None, "asks for a GPU's number, but this is: no benchmark",
    ),
    "a GPU's margin needs a GPU too": (rule(margin=0, device="gpu"), EVIDENCE, None, "asks for a GPU's number"),
    "a gain of NaN is refused": (rule(margin=-1), EVIDENCE, champion(math.nan), "cannot be compared with a champion"),
    "a number without a gain is refused": (
        rule("evaluation.ensemble.accuracy.low", margin=0), EVIDENCE, champion(1.0), "and one of accuracy",
    ),
    "a margin on nothing is refused, champion or not": (
        rule("evaluation.ensemble.auc", margin=0), EVIDENCE, None, "'auc' was not found among accuracy, alone",
    ),
    "a margin without evidence is refused, champion or not": (rule(margin=0), {}, None, "was not found"),
    "a plain number has no bound": (
        rule("evaluation.rows", min=1, confidence=0.9), EVIDENCE, None, "it has no interval",
    ),
    "one group has no bound": (
        rule("evaluation.ensemble.alone", min=0.1, confidence=0.9), EVIDENCE, None, "all its rows are of one group",
    ),
    "few groups have no bound": (
        rule("evaluation.ensemble.few", min=0.1, confidence=0.9), EVIDENCE, None,
        "its rows are of 19 groups, and 20 are the least",
    ),
    "a mean over labels has no bound where one of them is rare": (
        rule("evaluation.ensemble.rare", min=0.1, confidence=0.9), EVIDENCE, None,
        "is in 9 groups of rows, and 10 are the least",
    ),
    "a gain on few groups has no bound": (
        rule(margin=-1, confidence=0.9), EVIDENCE, champion(0.5, groups=19), "its rows are of 19 groups",
    ),
    "one group has no bound of its gain": (
        rule(margin=-1, confidence=0.9), EVIDENCE, champion(0.5, None), "cannot be told: all its rows are of one group",
    ),
    "one group has no power": (rule(margin=-1, power=0.1), EVIDENCE, champion(0.5, None), "cannot tell: all rows"),
    "a test split that is too small cannot tell, however good the gain": (
        rule(margin=-0.01, confidence=0.9, power=0.8), EVIDENCE, champion(0.2),
        "would pass with a probability of 0.39 on these 400 rows, and the rule asks for 0.8; about 1,808 rows of this",
    ),
    "no number of rows proves a gain that is not there": (
        rule(margin=0, confidence=0.9, power=0.8), EVIDENCE, champion(0.2), "no number of rows is enough",
    ),
    "no slice is large enough": (
        rule(min=0, slice={"by": "source", "min_rows": 3}), EVIDENCE, None,
        "no slice by source has 3 rows; the largest of 1 has 2",
    ),
    "no slice of the champion's is large enough": (
        rule(margin=-1, slice=BY_LABEL), EVIDENCE, champion(0, slices={"a": compared(0, rows=29)}),
        "no slice by label has 30 rows; the largest of 1 has 29",
    ),
    "a cut that was not measured": (
        rule(min=0, slice={"by": "length", "min_rows": 3}), EVIDENCE, None, "expected one of label, source, meta.age",
    ),
    "a gap is between two": (
        rule(gap=1, slice={"by": "label", "min_rows": 50}), EVIDENCE, None, "no slice by label has 50 rows",
    ),
    "a slice of one group has no bound": (
        rule(min=0, confidence=0.9, slice={"by": "meta.age", "min_rows": 3}), EVIDENCE, None, "how sure slice old is",
    ),
    "a gap with a slice of one group has no bound": (
        rule(gap=1, confidence=0.9, slice={"by": "meta.age", "min_rows": 3}), EVIDENCE, None,
        "how sure slice old is cannot be told: all its rows are of one group; with min_rows above 50 it is not judged",
    ),
    "a slice does not have what nobody has": (
        rule("evaluation.ensemble.brier", min=0, slice=BY_LABEL), EVIDENCE, None,
        "slice a has no finite ensemble.brier",
    ),
    "a drift that is not known is none": (
        rule("drift.text_length", max=1), EVIDENCE, champion(0), "'text_length' was not found among labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSES)
def test_the_gate_says_that(case: str) -> None:
    given, evidence, comparison = PASSES[case]
    outcome = answer(given, evidence, comparison)
    assert outcome.passed, outcome.why
    assert (outcome.name, outcome.answer) == ("a rule", "passed")


@pytest.mark.parametrize("case", FAILS)
def test_the_gate_refuses_because(case: str) -> None:
    given, evidence, comparison, why = FAILS[case]
    outcome = answer(given, evidence, comparison)
    assert (outcome.passed, outcome.answer) == (False, "failed")
    assert why in outcome.why


@pytest.mark.parametrize("case", NOT_ANSWERED)
def test_the_gate_refuses_what_it_cannot_answer(case: str) -> None:
    given, evidence, comparison, why = NOT_ANSWERED[case]
    outcome = answer(given, evidence, comparison)
    assert (outcome.passed, outcome.answer) == (False, "not answered")
    assert why in outcome.why


def test_no_rule_means_no_blessing() -> None:
    verdict = judge([], EVIDENCE, None)
    assert (verdict.blessed, verdict.quality, verdict.serving) == (False, False, False)
    assert [(outcome.kind, outcome.passed) for outcome in verdict.rules] == [("quality", False), ("serving", False)]
    assert "no rule means no blessing" in verdict.rules[0].why


def test_a_blessing_needs_both_verdicts_and_each_needs_a_rule() -> None:
    good, fast = rule(min=0.7), rule(P95, max=20)
    found = {name: judge(rules, EVIDENCE, None) for name, rules in {
        "both": [good, fast], "no serving": [good], "no quality": [fast], "slow": [good, rule(P95, max=1)],
        "poor": [rule(min=0.9), fast], "drifted alone": [rule("drift.labels", max=1), fast],
    }.items()}  # fmt: skip
    assert {name: (verdict.quality, verdict.serving, verdict.blessed) for name, verdict in found.items()} == {
        "both": (True, True, True), "no serving": (True, False, False), "no quality": (False, True, False),
        "slow": (True, False, False), "poor": (False, True, False), "drifted alone": (True, True, True),
    }  # fmt: skip
    assert "no gate rule on export. or rehearse. or benchmark." in found["no serving"].rules[-1].why


def test_one_refusal_among_many_refuses() -> None:
    verdict = judge([rule(min=0.7), rule(min=0.9), rule(P95, max=20)], EVIDENCE, champion(0.0))
    assert not verdict.blessed
    assert [outcome.passed for outcome in verdict.rules] == [True, False, True]
    assert verdict.champion == "v1.2.0"


def test_all_rules_passed_is_a_blessing() -> None:
    verdict = judge([rule(min=0.7), rule(P95, max=20)], EVIDENCE, None)
    assert verdict.blessed
    assert verdict.champion is None
    assert verdict.accepted is None


RULES = [rule(margin=-0.01), rule(P95, max=20)]
DECISION = Acceptance(champion="v1.2.0", by="Ada", reason="label X was split")


def test_a_champion_that_cannot_be_compared_refuses_and_says_what_would_help() -> None:
    verdict = judge(RULES, EVIDENCE, INCOMPARABLE)
    assert not verdict.blessed
    outcome = verdict.rules[0]
    assert (outcome.answer, outcome.passed) == ("incomparable", False)
    assert outcome.why.startswith(
        "champion v1.2.0 knows other labels, so it cannot be compared; to publish all the same"
    )
    assert "publish.accept_incomparable" in outcome.why


def test_a_recorded_decision_lets_it_pass_and_stands_in_the_verdict() -> None:
    verdict = judge(RULES, EVIDENCE, INCOMPARABLE, DECISION)
    assert verdict.blessed
    assert verdict.accepted is not None
    assert (verdict.accepted.by, verdict.accepted.reason) == ("Ada", "label X was split")
    assert (verdict.rules[0].answer, verdict.rules[0].passed) == ("incomparable", True)
    assert "Ada accepted that: label X was split" in verdict.rules[0].why


def test_a_decision_holds_for_no_other_champion() -> None:
    verdict = judge(RULES, EVIDENCE, Comparison("v1.3.0", None, "knows other labels"), DECISION)
    assert not verdict.blessed
    assert verdict.accepted is None


def test_a_decision_excuses_no_loss_to_a_champion_that_can_be_compared() -> None:
    verdict = judge(RULES, EVIDENCE, champion(-0.5), DECISION)
    assert not verdict.blessed
    assert verdict.accepted is None


def test_a_decision_excuses_nothing_but_margins() -> None:
    assert not judge([*RULES, rule(min=0.9)], EVIDENCE, INCOMPARABLE, DECISION).blessed


def test_a_gain_is_told_with_its_interval_and_with_what_the_rows_could_have_shown() -> None:
    outcome = answer(rule(margin=-0.01), EVIDENCE, champion(0.02))
    assert outcome.why == (
        "gain over champion v1.2.0 is +0.0200 [+0.0000, +0.0400], at least -0.01; a true difference of 0.028 would "
        "have shown, an equal model passes with a probability of 0.84, one worse by 0.02 with 0.16"
    )
    assert outcome.bound == "≥ champion -0.01"
    assert outcome.value == 0.02
    assert outcome.rows == 400
    assert outcome.gain is not None
    assert (outcome.gain.low, outcome.gain.high) == (0.0, 0.04)
    assert outcome.power is not None
    assert outcome.power.equal_passes == pytest.approx(0.8413, abs=1e-4)
    assert outcome.power.worse_passes == pytest.approx(0.1587, abs=1e-4)


def test_a_large_bound_is_told_in_full() -> None:
    assert answer(rule("benchmark.model_bytes", max=60_000_000), EVIDENCE, None).bound == "≤ 60,000,000"


def test_a_metric_is_looked_up_by_its_estimate_or_its_number() -> None:
    assert look_up(EVIDENCE, ACCURACY) == (0.72, "")
    assert look_up(EVIDENCE, "evaluation.ensemble.accuracy.groups") == (300, "")


def test_slices_that_are_too_small_are_listed_and_not_judged() -> None:
    outcome = answer(rule(min=0.7, slice=BY_LABEL), EVIDENCE, None)
    assert {one.slice: one.answer for one in outcome.slices} == {"a": "passed", "b": "passed", "c": "too small"}
    assert (outcome.worst, outcome.value, outcome.rows) == ("b", 0.7, 40)
    assert "1 slice has fewer than 30 rows and is not judged" in outcome.why


def by_label(**errors: tuple[float, float]) -> dict[str, Any]:
    """Give slices of a value and an error."""
    evidence = copy.deepcopy(EVIDENCE)
    evidence["evaluation"]["slices"]["label"] = {name: part(100, *each) for name, each in errors.items()}
    return evidence


def confidences(outcome: RuleOutcome) -> dict[str, float | None]:
    return {one.slice: one.confidence for one in outcome.slices}


def test_slices_hold_a_confidence_together_the_clearest_at_the_highest() -> None:
    evidence = by_label(a=(0.8, 0.02), b=(0.9, 0.02), c=(0.7, 0.02))
    outcome = answer(rule(min=0.6, confidence=0.94, slice=BY_LABEL), evidence, None)
    assert outcome.passed
    assert confidences(outcome) == {"a": pytest.approx(0.97), "b": pytest.approx(0.98), "c": pytest.approx(0.94)}
    assert "Holm's, for 94 % in all slices together" in outcome.why


def test_a_slice_that_alone_would_pass_fails_beside_one_that_is_clearer_and_failed() -> None:
    alone = by_label(a=(0.64, 0.02))
    beside = by_label(a=(0.64, 0.02), b=(0.641, 0.02))
    given = rule(min=0.605, confidence=0.95, slice=BY_LABEL)
    assert answer(given, alone, None).passed
    outcome = answer(given, beside, None)
    assert {one.slice: one.answer for one in outcome.slices} == {"a": "failed", "b": "failed"}


def test_the_largest_gap_is_named_with_an_interval_for_all_pairs() -> None:
    outcome = answer(rule(gap=0.5, slice=BY_LABEL), by_label(a=(0.8, 0.03), b=(0.9, 0.03), c=(0.6, 0.03)), None)
    two = answer(rule(gap=0.5, slice=BY_LABEL), by_label(b=(0.9, 0.03), c=(0.6, 0.03)), None)
    assert outcome.worst == two.worst == "b and c"
    assert outcome.value == pytest.approx(0.3)
    assert outcome.interval is not None
    assert two.interval is not None
    assert outcome.interval.low < two.interval.low < 0.3 < two.interval.high < outcome.interval.high
    assert two.interval.high - two.interval.low == pytest.approx(2 * 1.968 * math.hypot(0.03, 0.03), rel=0.02)


def test_rows_that_resemble_each_other_count_for_fewer_in_mcnemar_s_interval() -> None:
    given, error = rule(margin=-0.5, confidence=0.95, test="mcnemar"), math.sqrt((140 - 400 / 4000) / 4000**2)
    held = {
        times: answer(given, EVIDENCE, champion(0.005, times * error, rows=4000, better=80, worse=60)).held
        for times in (1, 2)
    }
    assert held[1] is not None
    assert held[2] is not None
    assert (0.005 - held[2]) / (0.005 - held[1]) == pytest.approx(2, rel=0.05)


ON_CPU = {"device": "CPU, no GPU found", "gpu": None, "graph_faster": {"batch_1": {"value": 3.4}}}
BUSY = "some task waited for a processor in 97% of the time, more than 5%"
CONTENDED = EVIDENCE | {
    "benchmark": EVIDENCE["benchmark"] | {"valid": False, "invalid_because": BUSY, "others": {"int8": ON_CPU}}
}


def test_a_latency_that_passes_on_a_contended_machine_stands() -> None:
    found = answer(rule(P95, max=20), CONTENDED, None)
    assert found.passed
    assert "not valid" not in found.why


def test_a_latency_that_fails_on_a_contended_machine_says_that_it_was_contended() -> None:
    found = answer(rule(P95, max=5), CONTENDED, None)
    assert found.answer == "failed"
    assert f"not valid, for {BUSY}: measure again on a quiet machine" in found.why


def test_a_size_does_not_depend_on_contention() -> None:
    assert "not valid" not in answer(rule("benchmark.model_bytes", max=5), CONTENDED, None).why


def test_a_ratio_from_a_contended_machine_is_no_number_for_contention_may_flatter_it() -> None:
    metric = "benchmark.others.int8.graph_faster.batch_1"
    found = answer(rule(metric, min=3), CONTENDED, None)
    assert (found.answer, found.passed) == ("not answered", False)
    assert BUSY in found.why
    quiet = CONTENDED | {"benchmark": CONTENDED["benchmark"] | {"valid": True}}
    assert answer(rule(metric, min=3), quiet, None).passed


@pytest.mark.parametrize(
    ("metric", "passed"),
    [
        ("benchmark.batches.batch_1.p95_ms", True),
        ("benchmark.others.fp16.graph_faster.batch_1", True),
        ("benchmark.others.int8.graph_faster.batch_1", False),
        ("benchmark.beside.batches.batch_1.p95_ms", False),
    ],
)
def test_a_rule_on_a_gpu_asks_what_ran_the_side_that_it_names(metric: str, passed: bool) -> None:
    on_gpu = ON_CPU | {"device": "GPU: X", "gpu": "X"}
    benchmark = EVIDENCE["benchmark"] | {
        "device": "GPU: X",
        "gpu": "X",
        "others": {"fp16": on_gpu, "int8": ON_CPU, "student": ON_CPU},
    }
    benchmark |= {"beside": {"system": "student", "batches": {"batch_1": {"p95_ms": 1.0}}}}
    asked = rule(metric, device="gpu", **({"max": 20} if metric.endswith("ms") else {"min": 3}))
    found = answer(asked, EVIDENCE | {"benchmark": benchmark}, None)
    assert found.passed is passed
    assert (found.answer == "not answered") is not passed
    assert "(GPU: X)" in found.why if passed else "this is: CPU, no GPU found" in found.why


def test_how_many_times_as_fast_as_a_bundle_on_the_processor_is_no_number_of_a_gpu() -> None:
    benchmark = EVIDENCE["benchmark"] | ON_CPU | {"others": {"fp16": ON_CPU | {"device": "GPU: X", "gpu": "X"}}}
    asked = rule("benchmark.others.fp16.graph_faster.batch_1", device="gpu", min=3)
    found = answer(asked, EVIDENCE | {"benchmark": benchmark}, None)
    assert found.answer == "not answered"
    assert "this is: CPU, no GPU found" in found.why


def test_a_99th_percentile_from_too_few_calls_is_not_measured() -> None:
    batches = {"batch_1": {"p99_ms": None, "p95_ms": 1.0}}
    few = EVIDENCE | {"benchmark": EVIDENCE["benchmark"] | {"batches": batches}}
    found = answer(rule("benchmark.batches.batch_1.p99_ms", max=20), few, None)
    assert found.answer == "not answered"
    assert "not measured: needs 299 calls" in found.why
