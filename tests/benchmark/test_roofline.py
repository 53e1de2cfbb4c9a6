"""Counted work beside measured ceilings: what a graph cannot go below."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.ceiling import bandwidth_at, open_probes
from fuseline.benchmark.counting import Node
from fuseline.benchmark.roofline import _weigh, measure_rooflines
from fuseline.runtime.predictor import Row
from tests.benchmark.test_measure import CONDITIONS

CEILINGS = {"fp32": 1e11, "int8": 4e11, "copy_1000": 4e10, "copy_1000000": 1e10}


def node(flops: float | None, moved: float, dtype: str = "fp32", kind: str = "MatMul") -> Node:
    return Node(kind, dtype, flops, moved, 1.0)


@pytest.mark.parametrize(
    ("nodes", "floor_ms", "arithmetic_ms"),
    [
        ([node(1e8, 2e6)], 1.0, 1.0),
        ([node(1e6, 2e6)], 0.2, 0.01),
        ([node(1e6, 2e4)], 0.01, 0.01),
        ([node(1e8, 0), node(1e8, 0, "int8")], 1.25, 1.25),
        ([node(1e6, 2e6), node(1e8, 0)], 1.2, 1.01),
    ],
    ids=["by its arithmetic", "by its bytes", "in a cache", "each type by its own ceiling", "node by node"],
)
def test_a_call_cannot_be_faster_than(nodes: list[Node], floor_ms: float, arithmetic_ms: float) -> None:
    found = _weigh(1, nodes, 2.0, CEILINGS)
    assert found.floor_ms == pytest.approx(floor_ms)
    assert found.share == pytest.approx(floor_ms / 2)
    assert found.flops_share == pytest.approx(arithmetic_ms / 2)


def test_arithmetic_that_nobody_counted_is_named() -> None:
    assert _weigh(1, [node(None, 8, kind="Einsum")] * 2, 1.0, CEILINGS).uncounted == {"Einsum": 2}


def test_a_copy_of_the_next_smaller_size_is_the_ceiling_for_bytes() -> None:
    assert [bandwidth_at(size, CEILINGS) for size in (1, 1000, 999_999, 1e6, 1e9)] == [4e10, 4e10, 4e10, 1e10, 1e10]


def test_the_ceilings_are_what_this_machine_reaches() -> None:
    probes = open_probes(["fp32", "int8", "other"], "cpu", [("CPUExecutionProvider", {})], 1)
    assert {"fp32", "int8"} <= probes.keys()
    assert "other" not in probes
    for name, probe in probes.items():
        assert probe.run() > 1e8, name


def test_a_bundle_s_arithmetic_grows_with_its_rows_and_none_is_left_out(bundle: Path, rows: list[Row]) -> None:
    found, _ = measure_rooflines(bundle, Candidate.open(bundle, CONDITIONS, rows[0]), rows, CONDITIONS)
    one, three = found["batch_1"], found["batch_3"]
    assert one.uncounted == three.uncounted == {}
    assert list(one.flops) == ["fp32"]
    assert three.flops["fp32"] == pytest.approx(3 * one.flops["fp32"], rel=0.05)
    assert 0 < one.flops_share <= one.share
    assert sum(one.slowest.values()) <= 1.0001


@pytest.mark.parametrize("turns", [1, 3])
def test_graph_and_ceilings_are_timed_as_often_as_asked_for(
    turns: int, bundle: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def take(sides: dict[str, object], count: int, warmup: int, seed: int) -> dict[str, list[float]]:
        asked.append(count)
        return {name: [1.0] * count for name in sides}

    monkeypatch.setattr("fuseline.benchmark.roofline.take_turns", take)
    changed = CONDITIONS.model_copy(update={"roofline": turns})
    measure_rooflines(bundle, Candidate.open(bundle, changed, rows[0]), rows, changed)
    assert asked == [turns]
