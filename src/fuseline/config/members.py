"""Experts, fusion members, and how the latter join modalities: section members."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from fuseline.config.base import Count, Modality, Name, Positive, Section, Share, keys_of
from fuseline.config.optimisation import (
    ClassWeights,
    Decayed,
    Loss,
    Optimisation,
    Rate,
    Soup,
    Tuning,
    WarmStart,
    check_augments,
    check_rates,
)


class Recipe(Optimisation):
    """Training of one member."""

    warm_start: WarmStart | None
    """null trains anew each time. A member that goes on keeps what the champion knows of its labels, by their names,
    and learns those that are new; where there is nothing to go on from, it is trained anew, and its record says why."""
    dropout: Share
    """Before the head."""
    loss: Loss
    class_weights: ClassWeights | None
    """null weighs all classes alike."""
    label_smoothing: Share
    """Share of each label that is spread evenly over all classes."""
    soup: Soup | None
    """null trains once."""

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.loss == "crf" and (self.class_weights is not None or self.label_smoothing):
            raise ValueError(
                "the loss crf is of whole sequences and knows no weights of classes and no smoothing; set "
                "class_weights to null and label_smoothing to 0"
            )
        return self


class ExpertRates(Section):
    """Peak learning rates of an expert."""

    encoder: Rate | None
    """null with the tuning `frozen`, and only with it."""
    head: Positive


class Expert(Recipe):
    """A member on one modality."""

    modality: Modality
    tuning: Tuning
    learning_rate: ExpertRates

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        check_rates({"tuning": ("learning_rate.encoder", self.tuning, self.learning_rate.encoder)})
        return self

    @model_validator(mode="after")
    def _augments_fit(self) -> Self:
        check_augments(self.augment, self.modalities)
        return self

    @property
    def modalities(self) -> list[Modality]:
        """The one modality, as a list."""
        return [self.modality]

    @property
    def layout(self) -> bool:
        """Where a text stands in a picture is nothing to a member on one of them."""
        return False

    @property
    def tunings(self) -> dict[Modality, Tuning]:
        """Tuning by modality."""
        return {self.modality: self.tuning}

    @property
    def rates(self) -> dict[Modality, float | Decayed | None]:
        """Peak learning rate of the encoder by modality."""
        return {self.modality: self.learning_rate.encoder}


class FusionRates(Section):
    """Peak learning rates of a fusion member; null with the tuning `frozen`, and only with it."""

    text: Rate | None = None
    image: Rate | None = None
    audio: Rate | None = None
    head: Positive
    """Fusion and head."""

    def named(self) -> list[str]:
        """Return the modalities that are named."""
        return [name for name in get_args(Modality) if name in self.model_fields_set]


class OnSeveral(Section):
    """What is trained on several modalities at once."""

    modalities: Annotated[list[Modality], Field(min_length=2)]
    learning_rate: FusionRates

    @property
    def rates(self) -> dict[Modality, float | Decayed | None]:
        """Peak learning rate of each encoder by modality."""
        return {name: getattr(self.learning_rate, name) for name in self.modalities}


class LowRank(Section):
    """Products of the modalities' vectors, summed (Liu et al. 2018)."""

    rank: Count
    """How many products."""


class CrossAttention(Section):
    """Words, patches and frames of each modality attend to those of the others (co-attention, Lu et al. 2019)."""

    heads: Count
    """Of each attention; they share `hidden` among them."""
    layers: Count
    """How often the modalities look at each other."""


class Mixture(Section):
    """A router chooses a few networks for each example (mixture of experts, Fedus et al. 2022)."""

    experts: Annotated[int, Field(ge=2)]
    """Networks to choose from, all on all of the member's modalities: not the ensemble's experts."""
    chosen: Count
    """Networks per example."""
    balance: Annotated[float, Field(ge=0)]
    """Weight of the loss that, in training, keeps the router from sending all examples to the same networks. It is
    over the rows of each part and process."""

    @model_validator(mode="after")
    def _there_are_enough(self) -> Self:
        if self.chosen > self.experts:
            raise ValueError(f"chosen is {self.chosen}; expected at most experts, {self.experts}")
        return self


def _kind_of_fusion(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = keys_of(value)
    return "low rank" if "rank" in keys else "mixture" if "experts" in keys else "attention"


Joining = Annotated[
    Annotated[Literal["concat", "gated", "late"], Tag("name")]
    | Annotated[LowRank, Tag("low rank")]
    | Annotated[CrossAttention, Tag("attention")]
    | Annotated[Mixture, Tag("mixture")],
    Discriminator(_kind_of_fusion),
]
"""How the modalities are joined. concat: their vectors one after the other, mixed by a layer; gated: weighed by gates
that see all of them (Arevalo et al. 2017); late: one head for each, and the average of the logits of those that are
there; or a section, for low-rank products, cross-attention, or a mixture of experts."""


class Fusion(Recipe, OnSeveral):
    """A member on several modalities at once."""

    fusion: Joining
    """How the modalities are joined."""
    hidden: Count
    """Width of the joint space; of late fusion, of each modality's own."""
    modality_dropout: Share
    """Probability, per example and modality, of hiding it in training; never hides all."""
    start: dict[Modality, Name]
    """Modality to the trained expert whose encoder it starts from; modalities left out start as loaded. Of no account
    where it goes on from the champion's member, which `warm_start` asks for."""
    tuning: dict[Modality, Tuning]
    """By modality, one for each of the member's."""
    layout: bool
    """Whether the text encoder sees where tokens stand in the picture and to each other, of rows that say so (`boxes`).
    It learns that at the head's rate. Rows without their picture show none of it."""

    @model_validator(mode="after")
    def _modalities_are_distinct(self) -> Self:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError("a modality is listed twice")
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        if self.layout and not {"text", "image"} <= set(self.modalities):
            raise ValueError(
                f"layout is true, but modalities are {', '.join(self.modalities)}; it is of text and image: set it to "
                "false, or add what lacks"
            )
        if self.layout and self.augment.text is not None:
            raise ValueError(
                "layout is true, and augment.text moves words away from where their boxes say; set one of them to "
                "false or null"
            )
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if isinstance(self.fusion, CrossAttention) and self.hidden % self.fusion.heads:
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of fusion.heads, {self.fusion.heads}")
        return self

    @model_validator(mode="after")
    def _augments_fit(self) -> Self:
        check_augments(self.augment, self.modalities)
        return self

    @model_validator(mode="after")
    def _tunings_fit(self) -> Self:
        for key, found in (("tuning", list(self.tuning)), ("learning_rate", self.learning_rate.named())):
            if set(found) != set(self.modalities):
                raise ValueError(f"{key}: expected {', '.join(self.modalities)}; found {', '.join(found) or 'none'}")
        check_rates(
            {
                f"tuning.{name}": (f"learning_rate.{name}", tuning, self.rates[name])
                for name, tuning in self.tuning.items()
            }
        )
        return self

    @property
    def tunings(self) -> dict[Modality, Tuning]:
        """Tuning by modality."""
        return self.tuning


Member = Expert | Fusion


class Members(Section):
    """The ensemble's members by name; a name stands for one member only."""

    experts: Annotated[dict[Name, Expert], Field(min_length=1)]
    fusions: dict[Name, Fusion]

    @model_validator(mode="after")
    def _names_and_starts_fit(self) -> Self:
        if twice := set(self.experts) & set(self.fusions):
            raise ValueError(f"{', '.join(sorted(twice))} names both an expert and a fusion member")
        if "student" in self.all():
            raise ValueError("student: this is what is taught by `distill`; give the member another name")
        for name, fusion in self.fusions.items():
            for modality, expert in fusion.start.items():
                if not self.experts_on(modality):
                    raise ValueError(f"fusions.{name}.start.{modality}: there is no expert on {modality} to start from")
                if expert not in self.experts_on(modality):
                    raise ValueError(
                        f"fusions.{name}.start.{modality}: {expert!r} is no expert on {modality}; "
                        f"expected {' or '.join(self.experts_on(modality))}"
                    )
        return self

    def experts_on(self, modality: str) -> list[str]:
        """Return the names of the experts on a modality, sorted."""
        return sorted(name for name, expert in self.experts.items() if expert.modality == modality)

    def all(self) -> dict[str, Member]:
        """Return all members, sorted by name: DVC does not see the order of keys, so no result may depend on it."""
        members: dict[str, Member] = {**self.experts, **self.fusions}
        return dict(sorted(members.items()))

    def kind(self, name: str) -> Literal["experts", "fusions"]:
        """Return the section that a member stands in."""
        return "experts" if name in self.experts else "fusions"

    def warm(self) -> list[str]:
        """Return the places of the members that go on from the champion's, such as experts/text."""
        members: dict[str, Member] = {**self.experts, **self.fusions}
        return [f"{self.kind(name)}/{name}" for name, each in members.items() if each.warm_start is not None]

    def modalities(self) -> list[Modality]:
        """Return the modalities that any member uses, text first."""
        used = {modality for member in self.all().values() for modality in member.modalities}
        return [modality for modality in get_args(Modality) if modality in used]
