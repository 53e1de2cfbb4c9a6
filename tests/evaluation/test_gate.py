"""The gate: what cannot be answered refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fuseline.config import Rule
from fuseline.evaluation.gate import Comparison, answer, judge, look_up
from fuseline.records import Estimate

EVIDENCE: dict[str, Any] = {
    "evaluation": {
        "ensemble": {"accuracy": {"value": 0.72, "low": 0.7, "high": 0.74}, "ece": {"value": math.nan}},
        "fusion_gain": {"accuracy": {"value": 0.72 - 0.70, "low": 0.0, "high": 0.04}},
        "labels": ["a", "b"],
        "rows": 100,
    },
    "export": {"max_logit_difference": 1e-5, "argmax_agreement": 1.0, "passed": True},
    "benchmark": {"gpu": None, "device": "CPU, no GPU found", "batches": {"batch_1": {"p95_ms": 12.0}}},
}  # fmt: skip
ON_GPU = EVIDENCE | {"benchmark": EVIDENCE["benchmark"] | {"gpu": "NVIDIA H200", "device": "GPU: NVIDIA H200"}}
ACCURACY = "evaluation.ensemble.accuracy"
P95 = "benchmark.batches.batch_1.p95_ms"


def rule(metric: str = ACCURACY, **keys: Any) -> Rule:
    return Rule(name="a rule", metric=metric, **keys)


def champion(gain: float) -> Comparison:
    return Comparison("v1.2.0", {"accuracy": Estimate(value=gain, low=gain - 0.01, high=gain + 0.01)})


INCOMPARABLE = Comparison("v1.2.0", None, "champion v1.2.0 knows other labels, so it cannot be compared")

PASSES = {
    "a value above its minimum passes": (rule(min=0.7), EVIDENCE, None),
    "a value on its minimum passes": (rule(min=0.72), EVIDENCE, None),
    "a value below its maximum passes": (rule(P95, max=20), EVIDENCE, None),
    "a value on its maximum passes": (rule(P95, max=12), EVIDENCE, None),
    "0.72 - 0.70 meets a minimum of 0.02": (rule("evaluation.fusion_gain.accuracy", min=0.02), EVIDENCE, None),
    "a whole number is a number": (rule("evaluation.rows", min=100), EVIDENCE, None),
    "any device may answer by default": (rule(P95, max=20), ON_GPU, None),
    "a GPU's number answers a GPU's rule": (rule(P95, max=20, device="gpu"), ON_GPU, None),
    "a margin passes while there is no champion": (rule(margin=0.05), EVIDENCE, None),
    "a gain above its margin passes": (rule(margin=-0.01), EVIDENCE, champion(0.0)),
    "a gain on its margin passes": (rule(margin=0.02), EVIDENCE, champion(0.72 - 0.70)),
    "a loss within a negative margin passes": (rule(margin=-0.01), EVIDENCE, champion(0.70 - 0.71)),
}
REFUSES = {
    "a value below its minimum is refused": (rule(min=0.73), EVIDENCE, None, "0.72 misses the bound ≥ 0.73"),
    "a value a hair below its minimum is refused": (rule(min=0.7200001), EVIDENCE, None, "misses"),
    "a value above its maximum is refused": (rule(P95, max=11.9), EVIDENCE, None, "12 misses the bound ≤ 11.9"),
    "NaN meets no minimum": (rule("evaluation.ensemble.ece", min=0), EVIDENCE, None, "is nan, not a finite number"),
    "NaN meets no maximum": (rule("evaluation.ensemble.ece", max=1), EVIDENCE, None, "is nan, not a finite number"),
    "infinity meets no minimum": (
        rule("export.big", min=0), {"export": {"big": math.inf}}, None, "is inf, not a finite number",
    ),
    "a bound of NaN is met by nothing": (rule(min=math.nan), EVIDENCE, None, "misses"),
    "a metric that is not there is refused": (
        rule("evaluation.ensemble.auc", min=0), EVIDENCE, None, "'auc' was not found among accuracy, ece",
    ),
    "a document that is not there is refused": (
        rule("training.loss", max=1), EVIDENCE, None, "'training' was not found among benchmark, evaluation, export",
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
    "a gain below its margin is refused": (rule(margin=0.02), EVIDENCE, champion(0.0199), "below +0.02"),
    "a champion that cannot be compared is not passed over": (
        rule(margin=-1), EVIDENCE, INCOMPARABLE, "champion v1.2.0 knows other labels",
    ),
    "a gain of NaN is refused": (rule(margin=-1), EVIDENCE, champion(math.nan), "cannot be compared with a champion"),
    "a number without a gain is refused": (
        rule("evaluation.ensemble.accuracy.low", margin=0), EVIDENCE, champion(1.0), "and one of accuracy",
    ),
    "a margin on nothing is refused, champion or not": (
        rule("evaluation.ensemble.auc", margin=0), EVIDENCE, None, "'auc' was not found among accuracy, ece",
    ),
    "a margin without evidence is refused, champion or not": (rule(margin=0), {}, None, "was not found"),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSES)
def test_the_gate_says_that(case: str) -> None:
    given, evidence, comparison = PASSES[case]
    outcome = answer(given, evidence, comparison)
    assert outcome.passed, outcome.why
    assert outcome.name == "a rule"


@pytest.mark.parametrize("case", REFUSES)
def test_the_gate_refuses_because(case: str) -> None:
    given, evidence, comparison, why = REFUSES[case]
    outcome = answer(given, evidence, comparison)
    assert not outcome.passed
    assert why in outcome.why


def test_no_rule_means_no_blessing() -> None:
    verdict = judge([], EVIDENCE, None)
    assert not verdict.blessed
    assert [outcome.passed for outcome in verdict.rules] == [False]
    assert "no rule means no blessing" in verdict.rules[0].why


def test_one_refusal_among_many_refuses() -> None:
    verdict = judge([rule(min=0.7), rule(min=0.9), rule(P95, max=20)], EVIDENCE, champion(0.0))
    assert not verdict.blessed
    assert [outcome.passed for outcome in verdict.rules] == [True, False, True]
    assert verdict.champion == "v1.2.0"


def test_all_rules_passed_is_a_blessing() -> None:
    verdict = judge([rule(min=0.7), rule(P95, max=20)], EVIDENCE, None)
    assert verdict.blessed
    assert verdict.champion is None


def test_a_gain_is_told_with_its_interval() -> None:
    outcome = answer(rule(margin=-0.01), EVIDENCE, champion(0.02))
    assert outcome.why == "gain over champion v1.2.0 is +0.0200 [+0.0100, +0.0300], at least -0.01"
    assert outcome.bound == "≥ champion -0.01"
    assert outcome.value == 0.02
    assert outcome.gain is not None
    assert (outcome.gain.low, outcome.gain.high) == (0.01, 0.03)


def test_a_large_bound_is_told_in_full() -> None:
    assert answer(rule("benchmark.model_bytes", max=60_000_000), EVIDENCE, None).bound == "≤ 60,000,000"


def test_a_metric_is_looked_up_by_its_estimate_or_its_number() -> None:
    assert look_up(EVIDENCE, ACCURACY) == (0.72, "")
    assert look_up(EVIDENCE, "evaluation.ensemble.accuracy.low") == (0.7, "")
