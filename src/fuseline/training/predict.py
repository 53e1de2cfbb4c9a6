"""Run members over examples, batch by batch.

Shape letters: N examples, M members, C classes, D feature size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fuseline import cache
from fuseline.inputs import own_inputs
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
    return _over(model, examples, collate, lambda batch: model(**batch)["logits"].log_softmax(1))


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

    outputs_NMC = _over(ensemble, examples, collate, run)
    return outputs_NMC[:, 0], outputs_NMC[:, 1:]


def encode(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    """Return the concatenated features [N, D] of the encoders; zeros where a modality is missing.

    They are kept in the cache, file by file: encoders that stay as they are cost new rows only.
    """
    how = _describe_encoders(model, collate)

    def make(part: Examples, target: Path) -> None:
        with target.open("wb") as file:
            np.save(file, _encode(model, part, collate))

    found = [
        np.load(cache.fetch("features", [how, digest], partial(make, part)), allow_pickle=False)
        for digest, part in examples.by_file()
    ]
    return np.concatenate(found)


def _describe_encoders(model: FusionModel, collate: Collator) -> str:
    """Say what, besides the examples, features depend on."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.encoders.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    parts = {
        "weights": weights.hexdigest(),
        "config": [model.config.modalities, model.config.encoders],
        "readers": collate.describe(),
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "code": cache.code_of("inputs", "models/encoders", "models/preprocess", "training/predict"),
        "versions": cache.versions_of("torch", "torchvision", "transformers", "tokenizers"),
    }
    return json.dumps(parts, sort_keys=True, default=str)


def _encode(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    def features(batch: dict[str, Tensor]) -> Tensor:
        return torch.cat([encoded(name, batch) * batch[flag(name)][:, None] for name in model.config.modalities], 1)

    def encoded(name: str, batch: dict[str, Tensor]) -> Tensor:
        vector_BD: Tensor = model.encoders[name](**own_inputs(name, batch)).vector_BD
        return vector_BD

    return _over(model, examples, collate, features)


def _over(
    model: nn.Module, examples: Examples, collate: Collator, run: Callable[[dict[str, Tensor]], Tensor]
) -> Floats:
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        outputs = [
            run({name: tensor.to(device) for name, tensor in batch.items()}).float().cpu().numpy()
            for batch in batches(examples, collate)
        ]
    return np.concatenate(outputs)
