"""Run members over examples, batch by batch.

Shape letters: N examples, U units (examples; where words or labels are scored, those of all examples, row after
row), M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fuseline.inputs.base import flag
from fuseline.inputs.words import PADDING, UNSEEN
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.training.examples import Collator, Examples

Floats = NDArray[np.float32]


def in_order_of_length(examples: Examples, collate: Collator) -> list[int]:
    """Return the rows' numbers, the longest first: rows of a batch are padded little, and memory runs out at once."""
    return np.argsort(-examples.lengths(collate.padded), kind="stable").tolist()  # type: ignore[no-any-return]


def batches(
    examples: Examples, collate: Collator, order: list[int], batch_size: int = 64
) -> Iterator[dict[str, Tensor]]:
    """Yield the arguments of FusionModel.forward, without labels."""
    for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate, sampler=order):
        batch.pop("labels", None)
        yield batch


def predict_log_probs(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    """Return log-probabilities [U, C]."""
    found = run_over(model, examples, collate, lambda batch: model(**batch)["logits"].log_softmax(-1))
    return found.reshape(-1, found.shape[-1])


def predict_ensemble(
    ensemble: Ensemble, examples: Examples, collate: Collator, given: Sequence[str] | None = None
) -> tuple[Floats, Floats]:
    """Return the probabilities of the ensemble [U, C] and of its members [U, M, C].

    Args:
        given: modalities that are shown; the others count as missing in every row. null shows all.
    """
    hidden = [flag(name) for name in ensemble.modalities if given is not None and name not in given]

    def run(batch: dict[str, Tensor]) -> Tensor:
        probs, _, members = ensemble(**batch | {name: torch.zeros_like(batch[name]) for name in hidden})
        return torch.cat([probs.unsqueeze(-2), members], dim=-2)

    outputs = run_over(ensemble, examples, collate, run)
    outputs_UMC = outputs.reshape(-1, *outputs.shape[-2:])
    return outputs_UMC[:, 0], outputs_UMC[:, 1:]


def count_unseen(examples: Examples, collate: Collator) -> int:
    """Count the words that no token stands for."""
    order = in_order_of_length(examples, collate)
    return sum(int((batch["words"] == UNSEEN).sum()) for batch in batches(examples, collate, order))


def run_over(
    model: nn.Module, examples: Examples, collate: Collator, run: Callable[[dict[str, Tensor]], Tensor]
) -> Floats:
    """Return what `run` makes of the model's inputs, batch by batch, as one array in the order of the examples."""
    device = next(model.parameters()).device
    model.eval()
    order, outputs, units = in_order_of_length(examples, collate), [], []
    with torch.inference_mode():
        for batch in batches(examples, collate, order):
            found = run({name: tensor.to(device) for name, tensor in batch.items()}).float().cpu()
            there = _units(found, batch)
            outputs.append(found[there].numpy())
            units.append(there.view(len(found), -1).sum(1).numpy())
    rows_U = np.repeat(order, np.concatenate(units))
    return np.concatenate(outputs)[np.argsort(rows_U, kind="stable")]


def _units(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Say where units are among outputs: rows; where words are scored words, those without a token too."""
    return batch["words"] != PADDING if "words" in batch else torch.ones(len(outputs), dtype=torch.bool)
