"""Run members over examples, batch by batch.

Shape letters: N examples, U units (examples; where words or labels are scored, those of all examples, row after
row), M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fuseline.inputs.base import flag
from fuseline.inputs.words import PADDING, UNSEEN
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.training.examples import Change, Collator, Examples

Floats = NDArray[np.float32]


def in_order_of_length(examples: Examples | Shown, collate: Collator | CollateShown) -> list[int]:
    """Return the rows' numbers, the longest first: rows of a batch are padded little, and memory runs out at once."""
    return np.argsort(-examples.lengths(collate.padded), kind="stable").tolist()  # type: ignore[no-any-return]


def batches(
    examples: Examples | Shown, collate: Collator | CollateShown, order: list[int], batch_size: int = 64
) -> Iterator[dict[str, Tensor]]:
    """Yield the arguments of FusionModel.forward, without labels."""
    for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate, sampler=order):
        batch.pop("labels", None)
        yield batch


def predict_log_probs(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    """Return log-probabilities [U, C]."""
    found = run_over(model, examples, collate, lambda batch: model(**batch)["logits"].log_softmax(-1))
    return found.reshape(-1, found.shape[-1])


def predict_ensemble(ensemble: Ensemble, examples: Examples, collate: Collator) -> tuple[Floats, Floats]:
    """Return the probabilities of the ensemble [U, C] and of its members [U, M, C]."""

    def run(batch: dict[str, Tensor]) -> Tensor:
        probs, _, members = ensemble(**batch)
        return torch.cat([probs.unsqueeze(-2), members], dim=-2)

    outputs_USC = run_over(ensemble, examples, collate, run).reshape(-1, 1 + len(ensemble.names), collate.classes)
    return outputs_USC[:, 0], outputs_USC[:, 1:]


@dataclass(frozen=True)
class Views:
    """What the ensemble says of the same rows, shown in other ways: probabilities [U, C]."""

    members_UMC: Floats
    whole_UC: Floats
    """All is shown, as it is."""
    patterns: list[Floats]
    """Some modalities are shown, as they are."""
    changed: list[Floats]
    """All is shown, and something of it is changed."""


def predict_views(
    ensemble: Ensemble, examples: Examples, collate: Collator, patterns: Sequence[Collection[str]] = (),
    changes: Sequence[Mapping[str, Change]] = (),
) -> Views:  # fmt: skip
    """Ask the ensemble about rows as they are, and in other ways; encoders run again only for what is changed.

    Args:
        patterns: modalities that are shown, where the others are to count as missing in every row.
        changes: by modality, what is done to its items.
    """
    shown = Shown(examples, [examples.changed(change) for change in changes])
    together = CollateShown(collate, [collate.only(*change) for change in changes])

    def run(batch: dict[str, Tensor]) -> Tensor:
        plain, *changed = split_views(batch)
        encoded = ensemble.encode(**plain)
        whole, _, members = ensemble(encoded=encoded, **plain)
        found = [whole]
        for pattern in patterns:
            hidden = [flag(name) for name in ensemble.modalities if name not in pattern]
            found.append(
                ensemble(encoded=encoded, **plain | {name: torch.zeros_like(plain[name]) for name in hidden})[0]
            )
        for change, own in zip(changes, changed, strict=True):
            given = plain | own
            again = ensemble.encode(only=change, **given)
            found.append(ensemble(encoded=encoded | again, **given)[0])
        return torch.cat([torch.stack(found, dim=-2), members], dim=-2)

    outputs = run_over(ensemble, shown, together, run)
    outputs_VUC = outputs.reshape(-1, *outputs.shape[-2:]).swapaxes(0, 1)
    cuts = np.cumsum([1, len(patterns), len(changes)])
    whole_1UC, by_pattern, by_change, members_MUC = np.split(outputs_VUC, cuts)
    return Views(members_MUC.swapaxes(0, 1), whole_1UC[0], list(by_pattern), list(by_change))


class Shown(Dataset[list[dict[str, Any]]]):
    """Examples, and beside each what it is changed to."""

    def __init__(self, examples: Examples, changed: Sequence[Examples]) -> None:
        self.examples, self.changed = examples, list(changed)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return [each[index] for each in (self.examples, *self.changed)]

    def lengths(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return how long rows are, [N]."""
        return self.examples.lengths(names)


class CollateShown:
    """Make one batch of examples and of what they are changed to, whose inputs are told apart by a number."""

    def __init__(self, plain: Collator, changed: Sequence[Collator]) -> None:
        self.plain, self.changed, self.padded = plain, list(changed), plain.padded

    def __call__(self, rows: list[list[dict[str, Any]]]) -> dict[str, Tensor]:
        first, *others = zip(*rows, strict=True)
        batch = self.plain(list(first))
        for number, (collate, items) in enumerate(zip(self.changed, others, strict=True), start=1):
            batch |= {f"{number} {name}": tensor for name, tensor in collate(list(items)).items() if name != "labels"}
        return batch


def split_views(batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Take apart what CollateShown made: inputs as they are, then those of each change."""
    found: dict[int, dict[str, Tensor]] = {0: {}}
    for key, tensor in batch.items():
        number, _, name = key.rpartition(" ")
        found.setdefault(int(number or 0), {})[name] = tensor
    return [found[number] for number in sorted(found)]


def count_unseen(examples: Examples, collate: Collator) -> int:
    """Count the words that no token stands for."""
    order = in_order_of_length(examples, collate)
    return sum(int((batch["words"] == UNSEEN).sum()) for batch in batches(examples, collate, order))


def run_over(
    model: nn.Module,
    examples: Examples | Shown,
    collate: Collator | CollateShown,
    run: Callable[[dict[str, Tensor]], Tensor],
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
