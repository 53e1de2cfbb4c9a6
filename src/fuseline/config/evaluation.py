"""What is measured of answers: sections evaluate and explain."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fuseline.config.base import Count, Name, Portion, Positive, Section


def _check_cut(by: str) -> str:
    if by not in CUTS and (not by.startswith("meta.") or by == "meta."):
        raise ValueError(f"expected one of {', '.join(CUTS)}, or meta.COLUMN")
    return by


CUTS = ("label", "modalities", "length", "source")
"""What test rows are cut into slices by, besides columns of meta."""
Cut = Annotated[str, AfterValidator(_check_cut)]
"""label: what is true; modalities: which of them a row holds; length: of its text; source: the batch's name for where
it came from; meta.COLUMN: a column that batches brought along."""


class Disturb(Section):
    """One way in which what is shown may be worse than what was trained on: exactly one of these."""

    blur: Portion | None = None
    """Pictures: standard deviation of a Gaussian, as a share of the side."""
    rotate: Annotated[float, Field(gt=0, le=180)] | None = None
    """Pictures: degrees, to either side."""
    noise: Portion | None = None
    """Pictures: standard deviation of what is added to each channel, as a share of the brightest; recordings: the same,
    as a share of their own standard deviation."""
    typos: Portion | None = None
    """Texts: share of letters that change places with the next one of their word."""
    case: Literal["upper", "lower"] | None = None
    """Texts: all letters are written so."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in (self.blur, self.rotate, self.noise, self.typos, self.case)) != 1:
            raise ValueError("set exactly one of blur, rotate, noise, typos and case")
        return self


class Evaluate(Section):
    """Uncertainty of the reported metrics, and how robust they are."""

    resamples: Count
    """Bootstrap resamples of the test split's groups."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals."""
    slices: list[Cut]
    """What the test rows are cut by, each part measured by itself, and against the champion."""
    slice_values: Count
    """Slices of one cut, at most: the largest by rows; the rest is one, named other."""
    robustness: dict[Name, Disturb]
    """By name, what test rows are changed by, to see what the ensemble loses; what changes nothing that members use is
    passed over."""
    probe_rows: Count
    """Training rows, spread evenly, for the linear heads that say what there was before fine-tuning."""
    probe_penalty: Positive
    """Weight of half the linear heads' squared weights against their summed loss: scikit-learn's 1 / C."""
    probe_steps: Count
    """Steps of L-BFGS, at most, for fitting a linear head."""

    @model_validator(mode="after")
    def _cuts_differ(self) -> Self:
        if len(set(self.slices)) != len(self.slices):
            raise ValueError("slices: one is listed twice")
        return self


class Explain(Section):
    """What answers rest on, and which labels are in doubt."""

    examples: Annotated[int, Field(ge=0)]
    """Confident wrong answers that are traced back to words, parts of pictures and moments of recordings."""
    steps: Count
    """Of the integral of gradients that does it."""
    grid: Count
    """Parts of a picture's side."""
    review: Annotated[int, Field(ge=0)]
    """Examples with doubtful labels, at most, that are listed for a look."""
