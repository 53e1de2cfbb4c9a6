"""Made-up runs for the report's tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from fuseline.records import (
    Across,
    Against,
    Alike,
    Benchmark,
    Bin,
    Calibration,
    Change,
    ClassRow,
    Compared,
    DataManifest,
    Doubt,
    Estimate,
    Evaluation,
    Excluded,
    Exclusion,
    Expectation,
    Explained,
    Explanation,
    Exported,
    Flip,
    Flips,
    Latency,
    Leakage,
    Marked,
    Metrics,
    Parity,
    Power,
    Preparation,
    Rehearsal,
    RuleOutcome,
    Seen,
    Slice,
    Tuning,
    Validation,
    Verdict,
    Versus,
)
from fuseline.report.page import Story
from tests.conftest import paint

LABELS = ["activities", "animals", "flags", "food", "objects", "people", "symbols", "travel"]
GATE = [
    RuleOutcome(name="accurate", metric="evaluation.ensemble.accuracy", value=0.871, bound="≥ 0.8", passed=True,
                kind="quality", answer="passed", rows=301,
                why="0.871 meets the bound ≥ 0.8"),
    RuleOutcome(name="no worse", metric="evaluation.ensemble.accuracy", value=0.021, bound="≥ champion -0.01",
                passed=True, kind="quality", answer="passed",
                why="gain over champion v1.1.0 is +0.0210 [-0.0043, +0.0460], at least -0.01",
                gain=Estimate(value=0.021, low=-0.0043, high=0.046)),
    RuleOutcome(name="fast on a GPU", metric="benchmark.batches.batch_1.p95_ms", value=None, bound="≤ 20",
                passed=False, kind="serving", answer="not answered",
                why="asks for a GPU's number, but this is: CPU, no GPU found"),
]  # fmt: skip


@pytest.fixture
def gate() -> list[RuleOutcome]:
    """Give two rules that passed, and one that failed for want of a number."""
    return GATE


@pytest.fixture(name="leakage")
def give_leakage() -> Leakage:
    """Give a made-up report on leaks."""
    return leakage()


@pytest.fixture
def story() -> Callable[..., Story]:
    """Give the teller of stories: labels first, then fields to replace."""
    return tell


def metrics(value: float) -> Metrics:
    """Give every metric a plausible estimate around an accuracy."""
    low_is_good = {"nll": 1.1 - value, "brier": (1 - value) * 1.4, "ece": 0.031}
    values = {"accuracy": value, "macro_f1": value - 0.012, **low_is_good}
    return {name: Estimate(value=one, low=one - 0.024, high=one + 0.022) for name, one in values.items()}


def gains(value: float) -> Metrics:
    """Give every metric the same paired gain."""
    return {name: Estimate(value=value, low=value - 0.02, high=value + 0.02) for name in metrics(0.5)}


def parity() -> Parity:
    """Give a bundle in eight bits beside the graph that it was made from."""
    common: dict[str, Any] = {"rows": 301, "batch_sizes": [1, 3, 8], "evaluation_agreement": 0.9967}
    plain = common | {"max_logit_difference": 4.8e-7, "relative_logit_difference": 9.1e-8, "argmax_agreement": 1.0}
    coarse = common | {"max_logit_difference": 0.31, "relative_logit_difference": 0.04, "argmax_agreement": 0.9934}
    done = {"convolutions": 53, "products": 76}
    return Parity(
        **plain, metric="accuracy", published="int8", drop=0.0033, traced_nodes=760,
        variants={
            "fp32": Exported(**plain, nodes=753, model_bytes=538_000_000, operators={}, value=0.8505, drop=0.0),
            "int8": Exported(**coarse, nodes=1186, model_bytes=134_000_000, operators=done, value=0.8472, drop=0.0033),
        },
    )  # fmt: skip


def evaluation(labels: list[str]) -> Evaluation:
    """Invent an evaluation over these labels, with confusions between neighbours."""
    dice, count = random.Random(len(labels)), len(labels)
    confusion = [[0] * count for _ in labels]
    for row in range(count):
        confusion[row][row] = dice.randint(18, 60)
        confusion[row][(row + 1) % count] += dice.randint(1, 7)
        confusion[row][dice.randrange(count)] += 1
    members = {"text": 0.79, "image": 0.742, "fused": 0.838}
    return Evaluation(
        labels=labels,
        rows=sum(map(sum, confusion)),
        confidence=0.95,
        ensemble=metrics(0.871),
        members={name: metrics(value) for name, value in members.items()},
        before={name: metrics(value - 0.09) for name, value in members.items()},
        fine_tuning_gain={name: gains(0.09) for name in members},
        fusion_gain=gains(0.081),
        best_single="text",
        patterns={"image + text": metrics(0.871), "text": metrics(0.8), "image": metrics(0.751)},
        per_class=[ClassRow(label=label, precision=0.8 + dice.random() / 5, recall=0.85, f1=0.6 + dice.random() / 3,
                            support=sum(line)) for label, line in zip(labels, confusion, strict=True)],
        confusion=confusion,
        weights={"text": 0.31, "image": 0.22, "fused": 0.47},
        temperature=1.183,
        contributions={name: gains(0.01 * number) for number, name in enumerate(members)},
        robustness={"blurred": metrics(0.84)},
        robustness_gain={"blurred": gains(-0.031)},
        slices={"label": {label: Slice(rows=40, ensemble=metrics(0.8)) for label in labels}},
        tuning={name: Tuning(classes={label: Change(rows=40, before=0.5, after=0.8) for label in labels},
                             slices={"label": {label: Change(rows=40, before=0.5, after=0.8) for label in labels}})
                for name in members},
        calibration={"ensemble": Calibration(
            bins=[Bin(units=20, confidence=0.4, accuracy=0.35), Bin(units=281, confidence=0.93, accuracy=0.9)],
            chance=Estimate(value=0.03, low=0.02, high=0.045),
        )},
        disagreement={one: {other: 0.21 for other in members if other != one} for one in members},
    )  # fmt: skip


def benchmark() -> Benchmark:
    """Invent latencies on a machine without a GPU."""
    batches = {
        f"batch_{size}": Latency(batch_size=size, calls=200, mean_ms=p50 * 1.05, p50_ms=p50, p95_ms=p50 * 1.3,
                                 p99_ms=p50 * 1.7, examples_per_second=1000 * size / p50)
        for size, p50 in ((1, 6.412), (16, 48.2), (8, 27.9))
    }  # fmt: skip
    return Benchmark(device="CPU, no GPU found", gpu=None,
                     providers_asked=["CUDAExecutionProvider", "CPUExecutionProvider"],
                     providers_used=["CPUExecutionProvider"], threads=2, cpu="AMD EPYC 9B14", cores=2,
                     platform="Linux-6.1-x86_64-with-glibc2.36", onnxruntime="1.31.1", model_bytes=181_234_567,
                     load_ms=412.7, peak_memory_bytes=734_003_200, batches=batches)  # fmt: skip


def leakage() -> Leakage:
    """Invent three rows alike in one modality, and one that was held out."""
    alike = [Alike(id=f"e{n}", split="test", other="e0", other_split="train") for n in range(1, 4)]
    held = Exclusion(rows=1, examples=[Excluded(id="e9", why="its family ties rows together")])
    return Leakage(duplicates=12, joined=5, largest_family=3, across={"same text": Across(rows=3, examples=alike)},
                   held_out={"between": held})  # fmt: skip


def compared(value: float) -> Compared:
    """Invent a comparison that the challenger wins."""
    sides = [{name: one.value for name, one in metrics(side).items()} for side in (value - 0.02, value)]
    return Compared(rows=301, units=301, better=9, worse=3, champion=sides[0], challenger=sides[1], gain=gains(0.02))


def against(labels: list[str]) -> Against:
    """Invent what became better and what became worse."""

    def flip(number: int, right: bool) -> Flip:
        answers = (labels[0], labels[-1]) if right else (labels[-1], labels[0])
        return Flip(
            id=f"e{number}",
            unit=None,
            true=labels[-1],
            champion=answers[0],
            champion_probability=0.61,
            challenger=answers[1],
            challenger_probability=0.74,
        )

    versus = {
        label: {"f1": Versus(rows=40, champion=0.8, challenger=0.75 + 0.02 * n)} for n, label in enumerate(labels)
    }
    return Against(
        champion="v1.1.0", metric="accuracy", confidence=0.95, overall=compared(0.871),
        power=Power(standard_error=0.014, visible=0.039, equal_passes=0.8, worse=0.08, worse_passes=0.0),
        per_class=versus, slices={"label": {label: compared(0.8) for label in labels}},
        better=Flips(count=9, shown=[flip(1, True), flip(2, True)]), worse=Flips(count=1, shown=[flip(3, False)]),
    )  # fmt: skip


def explanation(labels: list[str]) -> Explanation:
    """Invent what answers rest on."""
    error = Explained(
        id="e3", unit=None, label=labels[-1], predicted=labels[0], probability=0.9, label_probability=0.05,
        modalities={"text": 0.6, "image": 0.1}, chance=0.2, words=[Marked(start=0, end=4, share=0.7),
        Marked(start=5, end=9, share=-0.2)], pictures=[[[0.1, -0.4], [0.0, 0.2]]],
    )  # fmt: skip
    doubt = Doubt(id="e3", split="test", label=labels[-1], answer={"label": labels[0]}, probability=0.9, margin=-0.85)
    return Explanation(
        rows=301, chance={"accuracy": 0.2, "nll": 2.0}, modalities={"text": gains(0.4), "image": gains(0.2)},
        by_class={label: {"text": 0.3, "image": 0.2} for label in labels}, errors=[error], doubts=[doubt],
        seen=Seen(side=40, shorter=None),
    )  # fmt: skip


def rows() -> dict[str, dict[str, Any]]:
    """Invent the rows that are shown: one without a text, one without a picture."""
    picture = {"bytes": paint(), "path": None}
    return {
        "e1": {"id": "e1", "text": None, "image": picture}, "e2": {"id": "e2", "text": "a late bus", "image": None},
        "e3": {"id": "e3", "text": "some more words", "image": picture},
    }  # fmt: skip


def history(epochs: int) -> list[dict[str, float]]:
    """Invent a run that overfits in the end."""
    return [{"epoch": epoch, "train_loss": 2.1 / epoch**0.7, "val_loss": 1.9 / epoch**0.4 + 0.02 * epoch,
             "val_score": 0.8 - 0.4 / epoch} for epoch in range(1, epochs + 1)]  # fmt: skip


def tell(labels: list[str] | None = None, **changes: Any) -> Story:
    """Tell of a blessed run over the given labels, with some fields replaced."""
    names = labels or LABELS
    counts = {label: 40 + 3 * position for position, label in enumerate(names)}
    fields: dict[str, Any] = {
        "name": "fusion",
        "version": "v1.2.0",
        "run": "2026-11-23-quiet-otter",
        "created": "2026-11-23T20:43:00+00:00",
        "verdict": Verdict(blessed=True, quality=True, serving=True, champion="v1.1.0", rules=GATE[:2]),
        "evaluation": evaluation(names),
        "benchmark": benchmark(),
        "parity": parity(),
        "rehearsal": Rehearsal(
            rows=12, patterns={"image": 4, "text": 4, "text+image": 4}, problem=None, agreement=1.0, max_difference=0.0,
            evaluation_agreement=1.0, first_answer_seconds=1.4, seconds=4.2, installed={"numpy": "2.4.6"},
            python="3.11.9",
        ),
        "validation": Validation(passed=True, rows=3112, quarantined=14,
                                 why="14 of 3,112 rows are quarantined, at most 5 % are allowed", expectations=[
                                     Expectation(rule="picture can be decoded", passed=False, failed_rows=14),
                                     Expectation(rule="target is a known label", passed=True, failed_rows=0)]),
        "preparation": Preparation(rows={"test": 301, "train": 2490, "val": 307},
                                   groups={"test": 120, "train": 1010, "val": 118},
                                   labels=dict.fromkeys(("test", "train", "val"), counts)),
        "leakage": leakage(),
        "manifest": DataManifest(name="made up", task="classification", labels=names, rows=3112, shards=[]),
        "against": against(names),
        "explanation": explanation(names),
        "rows": rows(),
        "histories": {"text": history(9), "image": history(24), "fused": history(12)},
        "lineage": {"data revision": "9f2c1e7ab04d", "code revision": "41d00c7 (clean)",
                    "params": "sha256 " + "5ce0a1b2" * 8, "python": "3.11.9", "torch": "2.15.0"},
    }  # fmt: skip
    return Story(**fields | changes)
