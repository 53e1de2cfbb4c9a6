"""What is around the training of members: sections train and pretrain."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fuseline.config.base import Count, Modality, Section, Share, Weight
from fuseline.config.members import OnSeveral
from fuseline.config.optimisation import Optimisation, check_augments


class Objectives(Section):
    """What encoders learn from pairs, each by its weight in the loss; 0 leaves it out."""

    contrast: Weight
    """Which item of the batch belongs to this text, and the other way round (Radford et al. 2021)."""
    match: Weight
    """Whether an item belongs to a text; what is wrong is drawn from what is similar (Li et al. 2021)."""
    masked_words: Weight
    """Which word is hidden, with the other modality in sight (Li et al. 2021)."""

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all are 0; expected one above 0, or `pretrain: null`")
        return self


class Pretrain(Optimisation, OnSeveral):
    """Joint pre-training: before there are members, encoders learn from the training rows that have both modalities.

    No label is looked at. All members start from what it gives, but for those that go on from a champion's. Items are
    compared within each part of a step, and each process: fewer rows there are another, easier task.
    """

    modalities: Annotated[list[Modality], Field(min_length=2, max_length=2)]
    """text and another one."""
    objectives: Objectives
    hidden: Count
    """Width of the joint space."""
    heads: Count
    """Of the attention of words to the other modality's parts; they share `hidden` among them."""
    mask: Share
    """Share of the words that are hidden, for masked_words."""

    @model_validator(mode="after")
    def _pairs_fit(self) -> Self:
        if "text" not in self.modalities or len(set(self.modalities)) != 2:
            raise ValueError(f"modalities: expected text and another one; found {', '.join(self.modalities)}")
        if set(self.learning_rate.named()) != set(self.modalities) or None in self.rates.values():
            raise ValueError(f"learning_rate: expected a number for each of {', '.join(self.modalities)}, and head")
        if self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of heads, {self.heads}")
        if bool(self.objectives.masked_words) != bool(self.mask):
            raise ValueError("mask and objectives.masked_words: expected both above 0, or neither")
        if self.augment.image is not None and self.augment.image.mixup:
            raise ValueError("augment.image.mixup: a mixed picture belongs to no text; set it to 0")
        check_augments(self.augment, self.modalities)
        return self


class Train(Section):
    """What all members share."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    """CPU threads of torch. Part of the result: sums in another order give other weights."""
    precision: Literal["fp32", "bf16"]
    """bf16, on a GPU only, computes most of forward and backward in half the bits; weights stay fp32."""
    device: Literal["auto", "cpu"]
    """auto takes a GPU where there is one."""
    processes: Count
    """Processes that share each step's rows, on CPU by gloo, on GPUs one each. Norms over a batch are over each
    process's rows, dropout is drawn anew in each: members with either come out a little different."""
    length_pool: Count | None
    """Steps whose rows are drawn together and dealt to them by length: rows of one step are then padded little, so that
    long texts and recordings train faster. null deals rows without regard to their length."""
    checkpoint_steps: Count | None
    """Steps between checkpoints that a killed training goes on with; each epoch's end has one too. null keeps none.
    No result depends on it."""
