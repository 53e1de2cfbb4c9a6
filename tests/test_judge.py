"""A champion that knows other things is not compared in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from fuseline.config import Evaluate
from fuseline.data.shards import write_table
from fuseline.judge import compare
from fuseline.records import Bundle, Evaluation
from fuseline.runtime.predictor import Predictor
from fuseline.runtime.rows import read_parquet

SETTINGS = Evaluate(resamples=20, confidence=0.9, probe_rows=10)


@pytest.fixture
def clone(tmp_path: Path, bundle: Path, prepared: Path, evaluation: Evaluation) -> Path:
    """A run's clone whose challenger says what the bundle says."""
    build = tmp_path / "build"
    shutil.copytree(bundle, build / "export" / "bundle")
    shutil.copytree(prepared, build / "prepare")
    evaluation.write(build / "evaluate" / "evaluation.json")
    predictor = Predictor(bundle, ["CPUExecutionProvider"])
    answers = predictor.predict(read_parquet(prepared / "test", predictor.bundle.modalities))
    probabilities = [list(map(float, answer.probabilities)) for answer in answers]
    table = pa.table({"label": pa.array([0] * len(probabilities)), "probabilities": probabilities})
    write_table(table, build / "evaluate" / "predictions.parquet")
    return tmp_path


def test_a_champion_that_answers_alike_is_neither_better_nor_worse(clone: Path, bundle: Path) -> None:
    comparison = compare("v1.0.0", bundle, clone, SETTINGS)
    assert comparison.gain is not None
    assert [gain.value for gain in comparison.gain.values()] == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_champion_of_other_labels_is_not_compared(clone: Path, bundle: Path, evaluation: Evaluation) -> None:
    evaluation.model_copy(update={"labels": [*evaluation.labels, "new"]}).write(
        clone / "build/evaluate/evaluation.json"
    )
    comparison = compare("v1.0.0", bundle, clone, SETTINGS)
    assert comparison.gain is None
    assert "knows other labels" in comparison.why_not
    assert "take the margin rules out" in comparison.why_not


def test_a_champion_of_other_modalities_is_not_compared(clone: Path, bundle: Path) -> None:
    path = clone / "build/export/bundle/bundle.json"
    Bundle.read(path).model_copy(update={"modalities": ["text"]}).write(path)
    comparison = compare("v1.0.0", bundle, clone, SETTINGS)
    assert comparison.gain is None
    assert "sees other modalities" in comparison.why_not
