"""The file of a search for better params."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fuseline.config.base import Count, Name, Section, keys_of


class Range(Section):
    """Numbers that a search tries."""

    low: int | float
    high: int | float
    """Whole numbers are tried where both ends are written as such."""
    log: bool
    """Try as many between 1 and 10 as between 10 and 100."""

    @property
    def kind(self) -> type[int] | type[float]:
        """What is tried."""
        return int if isinstance(self.low, int) and isinstance(self.high, int) else float

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}; expected less than high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; with log: true it must be above 0")
        return self


class Choices(Section):
    """Values that a search tries."""

    choices: Annotated[list[Any], Field(min_length=2)]
    """Whatever params.yaml may have at the key."""


def _kind_of_range(value: Any) -> str:
    return "choices" if "choices" in keys_of(value) else "range"


class Search(Section):
    """A file of `fuseline tune`: which numbers of a member's training to try. Not a part of params.yaml."""

    member: Name
    """Whose training is tried."""
    metric: Literal["loss", "score"]
    """What is wanted on validation: a low loss, or much of the metric by which systems are compared."""
    startup_trials: Count
    """Trials that are drawn at random; none is pruned before as many have come to their end."""
    warmup_epochs: Annotated[int, Field(ge=0)]
    """Epochs of each trial before it may be pruned: where it is worse than the median of the others was."""
    space: Annotated[
        dict[str, Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
                            Discriminator(_kind_of_range)]],
        Field(min_length=1),
    ]  # fmt: skip
    """Dotted keys of params.yaml, and what is tried there."""
