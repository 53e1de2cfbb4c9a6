"""Run members over examples, batch by batch.

Shape letters: N examples, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fuseline.inputs.base import flag
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.training.examples import Collator, Examples

Floats = NDArray[np.float32]


def batches(examples: Examples, collate: Collator, batch_size: int = 64) -> Iterator[dict[str, Tensor]]:
    """Yield the arguments of FusionModel.forward, without labels."""
    for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate):
        batch.pop("labels")
        yield batch


def predict_log_probs(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    """Return log-probabilities [N, C]."""
    return run_over(model, examples, collate, lambda batch: model(**batch)["logits"].log_softmax(1))


def predict_ensemble(
    ensemble: Ensemble, examples: Examples, collate: Collator, given: Sequence[str] | None = None
) -> tuple[Floats, Floats]:
    """Return the probabilities of the ensemble [N, C] and of its members [N, M, C].

    Args:
        given: modalities that are shown; the others count as missing in every row. null shows all.
    """
    hidden = [flag(name) for name in ensemble.modalities if given is not None and name not in given]

    def run(batch: dict[str, Tensor]) -> Tensor:
        probs_BC, _, members_BMC = ensemble(**batch | {name: torch.zeros_like(batch[name]) for name in hidden})
        return torch.cat([probs_BC[:, None], members_BMC], dim=1)

    outputs_NMC = run_over(ensemble, examples, collate, run)
    return outputs_NMC[:, 0], outputs_NMC[:, 1:]


def run_over(
    model: nn.Module, examples: Examples, collate: Collator, run: Callable[[dict[str, Tensor]], Tensor]
) -> Floats:
    """Return what `run` makes of the model's inputs, batch by batch, as one array."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        outputs = [
            run({name: tensor.to(device) for name, tensor in batch.items()}).float().cpu().numpy()
            for batch in batches(examples, collate)
        ]
    return np.concatenate(outputs)
