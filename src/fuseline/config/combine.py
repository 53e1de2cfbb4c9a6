"""How members become one answer: sections combine and distill."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fuseline.config.base import Count, Positive, Section, keys_of
from fuseline.config.encoders import Encoders
from fuseline.config.members import Expert, Fusion


class Fitted(Section):
    """Weights that make the validation loss lowest."""

    uniform_pull: Annotated[float, Field(ge=0)]
    """Strength with which they are pulled to equal ones: a guard for small validation splits."""


class Greedy(Section):
    """Weights by greedy selection (Caruana et al. 2004): members are taken one by one, again perhaps."""

    rounds: Count
    """How many are taken; a member weighs as often as it was. Each time it is the one that lowers the validation loss
    most."""


def _kind_of_member_weights(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = keys_of(value)
    return "greedy" if "rounds" in keys else "fitted"


MemberWeights = Annotated[
    Annotated[Literal["equal"], Tag("name")] | Annotated[Fitted, Tag("fitted")] | Annotated[Greedy, Tag("greedy")],
    Discriminator(_kind_of_member_weights),
]
"""How much each member counts: all alike; as fitted on validation; or as often as greedy selection takes it."""


class Patterns(Section):
    """Members' weights for each pattern of modalities that are there."""

    pull: Positive
    """As many rows as this (words, or labels, where these are scored) of a pattern weigh as much as the weights of
    all, which theirs are drawn towards."""


class Stacking(Section):
    """A logistic regression on members' log-probabilities (Wolpert 1992), as a correction of their pool."""

    penalties: Annotated[list[Positive], Field(min_length=1)]
    """Strengths, against the summed loss, with which the correction is drawn towards none. The one with the lowest log
    loss on held-out validation rows is kept; where none is better than the pool alone, the pool stays as it is."""
    folds: Annotated[int, Field(ge=2)]
    """Parts of the validation groups, each held out once."""


class Combine(Section):
    """How members become one ensemble."""

    pool: Literal["arithmetic", "geometric"]
    """Weighted mean of probabilities, or of log-probabilities."""
    weights: MemberWeights
    patterns: Patterns | None
    """null has one set of weights for all rows."""
    stack: Stacking | None
    """null leaves the pool as it is."""

    @model_validator(mode="after")
    def _patterns_have_weights(self) -> Self:
        if self.patterns is not None and self.weights == "equal":
            raise ValueError("patterns: the weights are equal whatever is there; set patterns to null, or fit weights")
        return self


def _kind_of_member(value: Any) -> str:
    return "expert" if "modality" in keys_of(value) else "fusion"


AnyMember = Annotated[
    Annotated[Expert, Tag("expert")] | Annotated[Fusion, Tag("fusion")], Discriminator(_kind_of_member)
]
"""An expert, on one `modality`, or a fusion member, on several."""


class Distill(Section):
    """One member that learns from the ensemble what it says of the training rows (Hinton et al. 2015)."""

    student: AnyMember
    """Its recipe, on the modalities of the ensemble."""
    encoders: Encoders | None
    """Its own, smaller ones; null takes those of the members."""
    temperature: Positive
    """Softens the ensemble's answers, and the student's beside them: above 1, what is unlikely counts more."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """Share of the loss that the ensemble's answers are; the rest is the labels'."""

    @model_validator(mode="after")
    def _the_student_can_be_taught(self) -> Self:
        image = self.student.augment.image
        if image is not None and image.mixup:
            raise ValueError("student.augment.image.mixup: the ensemble said nothing of mixed pictures; set it to 0")
        if self.student.warm_start is not None:
            raise ValueError("student.warm_start: a student is trained anew each time; set it to null")
        if self.encoders is not None and isinstance(self.student, Fusion) and self.student.start:
            raise ValueError("student.start: the experts have other encoders than its own; set it to {}")
        return self
