"""A student: trained, measured, exported and timed beside the ensemble, or published in its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fuseline.config import Params
from fuseline.errors import NotFiniteError
from fuseline.evaluation.metrics import values_of
from fuseline.records import Benchmark, Combination, Evaluation, Metrics, Parity
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.stages import export
from tests.stages.conftest import run, whole_line

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def line(document: dict[str, Any], examples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the whole line."""
    with whole_line(tmp_path_factory.mktemp("distilled"), document, examples) as folder:
        yield folder


@pytest.fixture(autouse=True)
def _there(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line)


def exported(line: Path) -> dict[str, Any]:
    return json.loads((line / "build/export/metrics.json").read_text())["exported"]


def told(system: str, reached: Metrics) -> Any:
    """Give what the metrics of the export hold for a system: its own, as its bundle reaches them."""
    return pytest.approx({"system": system, "variant": "fp32", **values_of(reached)}, abs=1e-6)


def published(document: dict[str, Any], system: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    changed["export"]["system"] = system
    for rule in changed["gate"]:
        rule["metric"] = rule["metric"].replace("evaluation.ensemble.", f"evaluation.{system}.")
    return changed


def test_the_student_stands_beside_the_ensemble(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    assert evaluation.student is not None
    assert evaluation.student_gain is not None
    gain = evaluation.student["accuracy"].value - evaluation.ensemble["accuracy"].value
    assert evaluation.student_gain["accuracy"].value == pytest.approx(gain)
    assert set(evaluation.calibration) == {"ensemble", "student"}
    assert Combination.read(line / "build/distill/combination.json").weights == {"student": 1.0}
    benchmark = Benchmark.read(line / "build/benchmark/benchmark.json")
    assert benchmark.beside is not None
    assert benchmark.beside.system == "student"
    assert benchmark.beside.batches.keys() == benchmark.batches.keys()
    assert benchmark.beside.model_bytes < benchmark.model_bytes
    assert exported(line) == told("ensemble", evaluation.ensemble)
    found = json.loads((line / "build/evaluate/metrics.json").read_text())
    assert found["student"] == values_of(evaluation.student)
    assert found["ensemble"] == values_of(evaluation.ensemble)
    for kind in ("confusion", "classes", "reliability"):
        drawn = {path.stem: path.read_text() for path in (line / "build/evaluate/plots" / kind).iterdir()}
        assert drawn.keys() == {"ensemble", "student"}
    curves = {path.stem for path in (line / "build/evaluate/plots/learning").iterdir()}
    assert curves == {"text", "image", "fusion", "student"}
    latencies = {path.stem for path in (line / "build/benchmark/plots/latency").iterdir()}
    assert latencies == {"ensemble", "student", "int8"}
    assert read_bundle(line / "build/export/bundle").members == ["fusion", "image", "text"]
    assert read_bundle(line / "build/export/beside").members == ["student"]


def test_a_student_that_is_published_is_what_is_exported_and_checked(document: dict[str, Any], line: Path) -> None:
    before = Predictor(line / "build/export/beside").answer([Row("the rose")])
    expected = next(iter(before)).probabilities
    run(published(document, "student"), "export", "benchmark")
    try:
        bundle = line / "build/export/bundle"
        assert read_bundle(bundle).members == ["student"]
        student = Evaluation.read(line / "build/evaluate/evaluation.json").student
        assert student is not None
        assert exported(line) == told("student", student)
        assert "| student (this bundle) |" in (bundle / "README.md").read_text()
        assert next(iter(Predictor(bundle).answer([Row("the rose")]))).probabilities == pytest.approx(expected)
        parity = Parity.read(line / "build/export/parity.json")
        assert parity.max_logit_difference < 1e-4
        assert parity.evaluation_agreement == 1.0
        beside = Benchmark.read(line / "build/benchmark/benchmark.json").beside
        assert beside is not None
        assert beside.system == "ensemble"
        timed = json.loads((line / "build/benchmark/plots/latency/ensemble.json").read_text())
        assert max(row["ms"] for row in timed) == max(each.p95_ms for each in beside.batches.values())
    finally:
        run(document, "export", "benchmark")


def test_a_student_whose_answers_are_no_numbers_does_not_stand_beside(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(params: Params, system: str, variants: list[str], folder: Path) -> None:
        folder.mkdir()
        raise NotFiniteError("logits are not finite for 3 of 9 test rows")

    monkeypatch.setattr(export, "export", fail)
    export.export_beside(Params.model_validate(document), "student", "fp32", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "the student does not stand beside it: logits are not finite for 3 of 9 test rows" in capsys.readouterr().err


def test_without_the_section_there_is_no_student(document: dict[str, Any], line: Path) -> None:
    run(document | {"distill": None}, "distill", "evaluate")
    assert list((line / "build/distill").iterdir()) == []
    assert Evaluation.read(line / "build/evaluate/evaluation.json").student is None
