"""One modality in training: from params.yaml to a reader of its values and an encoder with its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fuseline.config import Augment
from fuseline.errors import DataError
from fuseline.inputs import READERS
from fuseline.inputs.base import Array, Reader
from fuseline.models.encoders.base import Encoder


class Modality(ABC):
    """What training knows of a modality.

    Args:
        settings: its section of params.yaml's `encoders`.
    """

    name: ClassVar[str]
    words = False
    """Whether words are scored, not rows."""
    layout = False
    """Whether texts come with where their stretches stand in the picture."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    def column(self) -> str:
        """Where a prepared file shows whether a row has the modality."""
        return READERS[self.name].column

    @cached_property
    def reader(self) -> Reader:
        """What makes items inputs of a model."""
        return self.build_reader()

    @abstractmethod
    def build_reader(self) -> Reader:
        """Build what makes items inputs of a model."""

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Return the arguments of the encoder's class: all that rebuilds it."""

    @abstractmethod
    def load(self, encoder: Encoder) -> None:
        """Put pretrained weights, if there are to be any, into a fresh encoder.

        Raises:
            ModelError: they cannot be loaded, or do not fit.
        """

    def build_change(self, augment: Augment) -> Callable[[Any, int], Any] | None:
        """Return a change of items in training, drawn from a number; None where there is none."""
        return None

    @abstractmethod
    def lengths(self, cells: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return how long the items are, to batch near ones: rows of a batch are padded to its longest; 0 for none."""


class FileModality(Modality):
    """A modality whose values are files: they are decoded once, and kept in the cache."""

    @abstractmethod
    def describe(self) -> str:
        """Say what, besides the file, `keep` depends on."""

    @abstractmethod
    def keep(self, value: bytes) -> bytes:
        """Decode a file to what is cached."""

    @property
    def kept_type(self) -> pa.DataType:
        """How it is cached."""
        return pa.binary()

    def keep_all(self, values: Sequence[bytes]) -> Any:
        """Decode the files of a row to what is cached.

        Raises:
            DataError: they are more than the modality takes.
        """
        if len(values) > 1:
            raise DataError(
                f"a row has {len(values)} files of {self.name}, and encoders.{self.name} takes one; set its `several`"
            )
        return self.keep(values[0])

    @abstractmethod
    def restore(self, kept: Any) -> Array:
        """Make an item, as the reader takes it, of what was cached; it may be changed."""

    def lengths(self, cells: pa.ChunkedArray) -> NDArray[np.int64]:
        return pc.binary_length(cells).fill_null(0).to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    @property
    @abstractmethod
    def kept_bytes(self) -> int:
        """About how much `keep` returns."""
