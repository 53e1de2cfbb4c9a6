"""One member out of several trainings: their weights averaged, as far as validation does not lose by it.

Source: Wortsman et al. 2022, algorithm 1 (greedy soup). Trainings begin with the same weights and differ in what is
drawn: the order of rows, dropout, changes of examples, adapters. Where they come to weights too far apart for an
average to be of use, as from an encoder that starts from nothing, the best of them is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fuseline.models.member import FusionModel

Weights = Mapping[str, Tensor]
"""A member's, by name, its buffers too."""


class Validated(NamedTuple):
    """What weights reach on validation; of two, the better one is greater."""

    score: float
    """In the metric by which systems are compared."""
    gain: float
    """The loss, negated: it decides between equal scores."""


class Tried(NamedTuple):
    """An ingredient of a soup."""

    number: int
    """Of the training."""
    alone: Validated
    soup: Validated
    """With it in."""
    kept: bool


def greedy_soup(
    ingredients: Sequence[Weights], validate: Callable[[Weights], Validated], refresh: Callable[[Weights], Weights]
) -> tuple[Weights, list[Tried]]:
    """Average what was trained, the best first; each stays in only if validation does not lose by it.

    Args:
        validate: scores weights on validation.
        refresh: finds anew what no average gives, as norms' running numbers.

    Returns:
        The soup, and what was tried for it, in that order.
    """
    alone = [validate(weights) for weights in ingredients]
    order = sorted(range(len(ingredients)), key=lambda number: alone[number], reverse=True)
    kept, soup, best = order[:1], ingredients[order[0]], alone[order[0]]
    tried = [Tried(order[0], best, best, True)]
    for number in order[1:]:
        mixed = refresh(average([ingredients[each] for each in [*kept, number]]))
        reached = validate(mixed)
        tried.append(Tried(number, alone[number], reached, reached >= best))
        if reached >= best:
            kept, soup, best = [*kept, number], mixed, reached
    return soup, tried


def copy_weights(model: FusionModel) -> Weights:
    """Return a member's weights as they are now, in memory of the CPU."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def average(ingredients: Sequence[Weights]) -> Weights:
    """Return the mean of each weight, in double precision: what all have alike stays as it is; of counts the first."""

    def mean(name: str, first: Tensor) -> Tensor:
        if not first.is_floating_point():
            return first
        return torch.stack([weights[name].double() for weights in ingredients]).mean(0).to(first.dtype)

    return {name: mean(name, first) for name, first in ingredients[0].items()}


def refresh_norms(model: FusionModel, batches: Iterable[dict[str, Tensor]]) -> None:
    """Find the running numbers of batch norms anew, as means over `batches`, which are seen as in training.

    Norms that rest, being frozen, keep theirs (models/modes.py), and so do those that no batch was large enough for.

    Args:
        batches: the arguments of FusionModel.forward; they are not gone through where there is no such norm.
    """
    model.train()
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training]
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all batches alike
    with torch.no_grad():
        for batch in batches if norms else ():
            model(**batch)
    for norm, (momentum, buffers) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            norm.load_state_dict(buffers, strict=False)
    model.eval()
