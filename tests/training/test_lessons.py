"""What a student is taught: the ensemble's answers, softened, beside the labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor

from fuseline.config import Distill, Encoders
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import IGNORED
from fuseline.records import Combination
from fuseline.tasks.classification import Classification
from fuseline.training.checkpoints import load_ensemble
from fuseline.training.examples import Collator
from fuseline.training.lessons import Lessons, ask
from fuseline.training.predict import predict_ensemble
from tests.conftest import LABELS

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
LABELS_BC = torch.eye(3)[[0, 1]]


def by_hand(temperature: float) -> float:
    """Eq. 4 of Hinton et al. 2015, times the squared temperature."""
    said = log_softmax(LOGITS.numpy() / temperature, axis=1)
    return float(-(SOFT.numpy() * said).sum(1).mean() * temperature**2)


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (3.0, 1.0), (3.0, 0.25)])
def test_the_loss_is_the_labels_and_the_ensemble_s_by_their_shares(temperature: float, weight: float) -> None:
    lessons = Lessons(SOFT.numpy(), temperature, weight)
    loss = lessons.blend(torch.tensor(5.0), LOGITS, SOFT, LABELS_BC)
    assert float(loss) == pytest.approx((1 - weight) * 5.0 + weight * by_hand(temperature), rel=1e-5)


def test_words_that_are_not_there_teach_nothing() -> None:
    lessons = Lessons(SOFT.numpy(), 2.0, 1.0)

    def wordwise(rows: Tensor, fill: float) -> Tensor:
        return torch.stack([torch.cat([rows, torch.full((2, 3), fill)])])

    loss = lessons.blend(torch.tensor(0.0), wordwise(LOGITS, 9.0), wordwise(SOFT, 0.0), wordwise(LABELS_BC, IGNORED))
    assert float(loss) == pytest.approx(by_hand(2.0), rel=1e-5)


def test_the_ensemble_is_asked_about_all_training_rows_and_softened(
    ensemble: Ensemble, prepared: Path, encoders: Encoders, fusion: Callable[..., Any], read: Callable[..., Any],
    readers: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    for name, member in zip(ensemble.names, ensemble.members, strict=True):
        folder = tmp_path / ("experts" if name in ("text", "image") else "fusions") / name
        member.save_pretrained(folder)
        for modality in member.config.modalities:
            readers[modality].save(folder)
    weights = dict(zip(ensemble.names, ensemble.combiner.weights_M.tolist(), strict=True))
    loaded = load_ensemble(tmp_path, Combination(weights=weights, temperature=0.8, pool="geometric"))
    settings = Distill(student=fusion(), encoders=None, temperature=4.0, weight=0.5)
    lessons = ask(loaded, tmp_path, prepared, encoders, Classification(LABELS), settings)
    plain_UC, _ = predict_ensemble(ensemble, read(), Collator(readers, len(LABELS)))
    assert lessons.soft_UC.shape == (24, 3)
    np.testing.assert_allclose(lessons.soft_UC, softmax(np.log(plain_UC) / 4.0, axis=1), atol=1e-5)
    assert (lessons.temperature, lessons.weight) == (4.0, 0.5)
