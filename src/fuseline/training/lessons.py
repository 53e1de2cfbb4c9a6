"""What a student learns from the ensemble: its answers to the training rows, softened.

Source: Hinton et al. 2015, section 2. The members were trained on these very rows, so that the ensemble is surer of
them than of others, and its answers say less about what a row resembles than they would on rows that it never saw.
Shape letters: U units (rows; where words or labels are scored, those), C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from fuseline.config import Distill, Encoders
from fuseline.models.ensemble import Ensemble
from fuseline.models.losses import cross_entropy
from fuseline.models.member import IGNORED
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_readers
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.predict import predict_ensemble

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lessons:
    """The ensemble's softened answers, and how much they count."""

    soft_UC: Floats
    temperature: float
    weight: float
    """Share of the loss that is theirs; the rest is the labels'."""

    def describe(self) -> list[str]:
        """Say what a training's result depends on."""
        digest = hashlib.sha256(np.ascontiguousarray(self.soft_UC).tobytes()).hexdigest()
        return [digest, str(self.temperature), str(self.weight)]

    def blend(self, loss: Tensor, logits: Tensor, soft: Tensor, labels: Tensor) -> Tensor:
        """Return the loss that counts: what the labels say, `loss`, and what the ensemble does.

        Gradients through softened answers shrink with the square of the temperature, which is made up for.
        """
        there = labels[..., 0] != IGNORED
        taught = self.temperature**2 * cross_entropy(logits[there] / self.temperature, soft[there])
        return (1 - self.weight) * loss + self.weight * taught


def ask(ensemble: Ensemble, folder: Path, prepared: Path, encoders: Encoders, task: Task, settings: Distill) -> Lessons:
    """Ask the ensemble about all training rows that it answers.

    Args:
        folder: holds its members' checkpoints.
        prepared: holds the split train.
        encoders: the members'.
    """
    wanted: Sequence[str] = task.wanted(ensemble.modalities)
    modalities = build_modalities(encoders, ensemble.modalities, task.words, ensemble.layout)
    train = Examples(prepared / "train", modalities, only=wanted)
    collate = Collator(load_readers(folder, ensemble), len(task.classes), words=task.words)
    probs_UC, _ = predict_ensemble(ensemble, train, collate)
    soft_UC = softmax(np.log(np.clip(probs_UC, 1e-12, 1)) / settings.temperature, axis=1)
    return Lessons(soft_UC, settings.temperature, settings.weight)
