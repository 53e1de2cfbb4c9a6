"""What training batches have that others have not: mixed pictures, smoothed and weighted labels.

Shape letters: B batch, U units (rows; where words or labels are scored, those), L labels, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fuseline.config import Member
from fuseline.models.member import IGNORED
from fuseline.tasks.base import Task
from fuseline.training.augment import mix_pictures
from fuseline.training.examples import Collator


class TrainingCollator:
    """Make a training batch: a plain one, its pictures mixed, its labels smoothed and weighted.

    Args:
        weights_C: factor of each class, where labels are scored of each label's no and yes [L, C]; None weighs all
            alike.
    """

    def __init__(self, plain: Collator, recipe: Member, weights_C: Tensor | None) -> None:
        self._plain, self._recipe, self._weights_C = plain, recipe, weights_C

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self._plain(examples)
        image = self._recipe.augment.image
        if image is not None and image.mixup:
            batch = mix_pictures(batch, image.mixup, self._recipe.modalities, examples[0]["draw"])
        if "soft" in examples[0]:
            batch["soft"] = pad_sequence([torch.from_numpy(example["soft"]) for example in examples], batch_first=True)
        labels = batch["labels"]
        soft = soften(labels, self._recipe.label_smoothing, self._weights_C)
        return batch | {"labels": soft if labels.ndim == 2 else torch.where(labels == IGNORED, labels, soft)}


def soften(labels_BC: Tensor, smoothing: float, weights_C: Tensor | None) -> Tensor:
    """Spread a share of each label evenly over all classes, then weigh the classes.

    The loss is linear in the labels: the result's cross-entropy is that of torch's `cross_entropy` with
    `label_smoothing` and `weight`, but averaged over rows, not over weights, so that a step's loss is the mean of its
    parts', wherever they are computed.
    """
    smooth_BC = labels_BC * (1 - smoothing) + smoothing / labels_BC.shape[-1]
    return smooth_BC if weights_C is None else smooth_BC * weights_C


def weigh_classes(recipe: Member, task: Task, found_U: NDArray[np.int64]) -> Tensor | None:
    """Return the factor of each class in the training loss, float [C], of each label's no and yes [L, C], or None.

    Args:
        found_U: class indices of the training rows' units.
    """
    if recipe.class_weights is None:
        return None
    if task.unit == "label":
        return _weigh_labels(recipe, task, found_U)
    if isinstance(recipe.class_weights, dict):
        return torch.tensor([recipe.class_weights[name] for name in task.weighed])
    counts_C = np.bincount(found_U, minlength=len(task.classes))
    return torch.from_numpy(len(found_U) / (len(task.classes) * np.maximum(counts_C, 1))).float()


def _weigh_labels(recipe: Member, task: Task, found_U: NDArray[np.int64]) -> Tensor:
    """Weigh yes alone where weights are given, and balance it with no where they are to be found."""
    if isinstance(recipe.class_weights, dict):
        return torch.tensor([[1.0, recipe.class_weights[name]] for name in task.weighed])
    yes_L = found_U.reshape(-1, len(task.labels)).sum(0)
    rows = len(found_U) // len(task.labels)
    counts_LC = np.stack([rows - yes_L, yes_L], axis=1)
    return torch.from_numpy(rows / (2 * np.maximum(counts_LC, 1))).float()
