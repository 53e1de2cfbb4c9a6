"""Which words, which parts of a picture and which moments of a recording an answer rests on.

Words and pictures: integrated gradients (Sundararajan, Taly and Yan 2017) along the straight line from a baseline that
says nothing, at the words' embeddings and at the pictures as the encoders see them, through the whole ensemble at once.
Recordings: what the answer loses where a stretch falls silent, for there is no one place where all audio encoders see
them alike. Both by Captum. Shape letters: B batch, which is one example, S tokens, P pictures, G cells of a side.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients
from torch import Tensor, nn

from fuseline.models.ensemble import Ensemble

STRETCHES = 20
"""Into which a recording is cut."""


@dataclass(frozen=True)
class Attribution:
    """Shares in the log-probability of one class; what a modality does not have is None.

    Those of words and pictures together make up, but for the error of the numerical integral, the difference to the
    answer on the baseline.
    """

    tokens: list[float] | None = None
    """[S]."""
    cells: list[list[list[float]]] | None = None
    """[P, G, G], rows of each picture from the top."""
    stretches: list[float] | None = None
    """[STRETCHES] of equal length."""
    difference: float = 0.0
    """Log-probability of the class less that on the baseline."""


def attribute(
    ensemble: Ensemble, batch: Mapping[str, Tensor], chosen: tuple[int, ...], steps: int, grid: int,
    kept: Tensor | None = None,
) -> Attribution:  # fmt: skip
    """Attribute one example's log-probability of a class.

    Args:
        batch: the ensemble's inputs for one example, B = 1.
        chosen: the class; where words or labels are scored, the unit before it.
        steps: of the integral.
        grid: G.
        kept: bool [S], tokens that the baseline keeps, such as [CLS]; null keeps none.
    """
    names, present = list(batch), {name: bool(batch[f"has_{name}"].any()) for name in ensemble.modalities}

    def score(*inputs: Tensor) -> Tensor:
        logits: Tensor = ensemble(**dict(zip(names, inputs, strict=True)))[1]
        log_probs = logits.log_softmax(-1)
        for number in chosen:
            log_probs = log_probs[:, number]
        return log_probs

    inputs, nothing = tuple(batch.values()), tuple(say_nothing(batch, kept).values())
    with torch.no_grad():
        difference = float(score(*inputs) - score(*nothing))
    seen = _layers(ensemble, present)
    layers = [*seen["text"], *seen["image"]]
    parts: list[Tensor] = []
    if layers:
        with warnings.catch_warnings():  # that one layer may feed another: these are of different encoders
            warnings.filterwarnings("ignore", "Multiple layers provided")
            way = LayerIntegratedGradients(score, layers)
        found: Any = way.attribute(inputs, nothing, n_steps=steps, internal_batch_size=16)
        parts = list(found) if isinstance(found, list | tuple) else [found]
    words, pictures = parts[: len(seen["text"])], parts[len(seen["text"]) :]
    sides = [nn.functional.adaptive_avg_pool2d(one.sum(1), grid) * (one.shape[-1] / grid) ** 2 for one in pictures]
    return Attribution(
        sum(one[0].sum(-1) for one in words).tolist() if words else None,  # type: ignore[union-attr]
        sum(sides).tolist() if sides else None,  # type: ignore[union-attr]
        _ablate(score, names, inputs) if present.get("audio") else None,
        difference,
    )


def say_nothing(batch: Mapping[str, Tensor], kept: Tensor | None = None) -> dict[str, Tensor]:
    """Return the baseline: tokens with number 0, pictures all of their mean colour, silence.

    Args:
        kept: bool [S], tokens that stay.
    """
    found = dict(batch)
    if "input_ids" in found:
        blank = torch.zeros_like(found["input_ids"])
        found["input_ids"] = blank if kept is None else torch.where(kept, found["input_ids"], blank)
    if "pixels" in found:
        pixels = found["pixels"].float()
        found["pixels"] = pixels.mean((-3, -2), keepdim=True).round().expand_as(pixels).to(found["pixels"].dtype)
    if "waveform" in found:
        found["waveform"] = torch.zeros_like(found["waveform"])
    return found


def _layers(ensemble: Ensemble, present: Mapping[str, bool]) -> dict[str, list[nn.Module]]:
    """Return where the encoders that run see words and pictures: one that several members share runs once."""
    owners = sorted({owner for own in ensemble.owners for owner in own})
    found: dict[str, list[nn.Module]] = {"text": [], "image": []}
    for at, name in owners:
        encoder: Any = ensemble.members[at].encoders[name]  # type: ignore[index]
        if present[name] and name in found:
            found[name].append(encoder.backbone.get_input_embeddings() if name == "text" else encoder.preprocess)
    return found


def _ablate(score: Any, names: list[str], inputs: tuple[Tensor, ...]) -> list[float]:
    at = names.index("waveform")
    samples = inputs[at].shape[1]
    mask = (torch.arange(samples) * STRETCHES // samples)[None]

    def of_wave(wave: Tensor) -> Tensor:
        return score(*(wave if number == at else each for number, each in enumerate(inputs)))  # type: ignore[no-any-return]

    with torch.no_grad():
        lost = FeatureAblation(of_wave).attribute(inputs[at], baselines=0.0, feature_mask=mask)
    return [
        float(lost[0, mask[0] == number].max()) if (mask[0] == number).any() else 0.0 for number in range(STRETCHES)
    ]
