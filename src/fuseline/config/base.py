"""What all sections share: names of kinds of numbers, and how a section is checked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["text", "image", "audio"]
Share = Annotated[float, Field(ge=0, lt=1)]
Portion = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


Whole = TypeVar("Whole", bound=BaseModel)


class Section(BaseModel):
    """Frozen, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def keys_of(value: Any) -> Collection[str]:
    """Return the keys of a section, read or still to be read; none of anything else."""
    return value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()
