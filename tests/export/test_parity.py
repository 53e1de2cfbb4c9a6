"""Where rows may have several labels, parity is of the labels that are given, by the fitted thresholds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.config import Encoders
from fuseline.export.bundle import Contents, write_bundle
from fuseline.inputs.base import Reader
from fuseline.models.ensemble import Ensemble
from fuseline.runtime.predictor import Predictor
from fuseline.runtime.rows import read_parquet
from fuseline.tasks.multilabel import MultiLabel
from fuseline.training.pretrained import build_member
from tests.conftest import LABELS, combiner_of, compare, liven


def test_an_evaluation_agrees_if_it_gives_the_same_labels_by_their_thresholds(
    encoders: Encoders, expert: Callable[..., Any], readers: dict[str, Reader], prepared: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    task = MultiLabel(LABELS, [0.2, 0.5, 0.9])
    model = liven(build_member(expert("text"), encoders, task, 0), 0)
    model.head.bias.data = model.head.bias.new_tensor([-0.85, 0.0, 0.85])  # odds of about 0.3, 0.5 and 0.7
    ensemble = Ensemble({"text": model}, combiner_of([1.0])).eval()
    contents = Contents(
        name="tiny", task=task, members=["text"], max_tokens=12, opset=20, data="0" * 64, card="# tiny\n"
    )
    write_bundle(tmp_path / "bundle", contents, ensemble, {"text": readers["text"]})
    predictor = Predictor(tmp_path / "bundle", ["CPUExecutionProvider"])
    rows = read_parquet(prepared / "test", ["text"])
    probs_ULC = np.stack([answer.probabilities for answer in predictor.answer(rows)])
    assert (probs_ULC[:, 0, 1] > 0.2).all()
    assert (probs_ULC[:, 2, 1] < 0.9).all()

    def agree(label: int, yes: float) -> float:
        """Return how well an evaluation agrees that gave all rows another probability of a label."""
        changed = probs_ULC.copy()
        changed[:, label] = [1 - yes, yes]
        return compare(
            tmp_path / "bundle", ensemble, prepared / "test", changed.reshape(-1, 2), [4]
        ).evaluation_agreement

    assert agree(0, 0.55) == agree(2, 0.85) == agree(2, 0.45) == 1.0
    assert agree(0, 0.15) == agree(2, 0.95) == pytest.approx(2 / 3)
