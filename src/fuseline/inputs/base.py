"""What a modality is to whoever calls the graph: named tensors, and how raw values become them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class File(Protocol):
    """What of a Path readers open."""

    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


class Folder(Protocol):
    """A Path, or files that were read and verified before."""

    def __truediv__(self, name: str, /) -> File: ...


@dataclass(frozen=True)
class Input:
    """One input of the graph."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    """Names of the axes that may have any size, sizes of the others; the first is `batch`."""
    note: str = ""
    traced: int = 0
    """What it is filled with where the graph is traced."""

    def describe(self) -> str:
        """Say type, axes and note, as in `uint8 [batch, height, width, 3], RGB`."""
        return f"{self.dtype} [{', '.join(map(str, self.axes))}]" + (f", {self.note}" if self.note else "")


class Reader(ABC):
    """Turns raw values of one modality into inputs of the graph: the one path that training and serving share.

    An *item* is a value as `read` leaves it. A missing one is None, and the graph is told so by a flag: what
    `collate` puts in its place does not count.
    """

    name: ClassVar[str]
    column: ClassVar[str]
    """Where a prepared file shows whether a row has the modality, without the bytes being read."""
    inputs: ClassVar[tuple[Input, ...]]
    """The graph's inputs, the flag apart."""
    files: ClassVar[tuple[str, ...]] = ()
    """What `save` writes, whatever the reader's settings."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Make an item of a raw value: a text, or the bytes of a file.

        Raises:
            DataError: it cannot be decoded.
        """

    @abstractmethod
    def collate(self, items: Sequence[Any | None]) -> dict[str, Array]:
        """Make the inputs of a batch, by name; the items must be alike."""

    def likeness(self, item: Any | None) -> Hashable:
        """Return what two items must have in common to go into one call."""
        return None

    def weigh(self, item: Any) -> int:
        """Return how many bytes an item takes in a batch."""
        return 0

    def save(self, folder: Path) -> None:
        """Write what a bundle or checkpoint needs to read values as this reader does."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Folder) -> Self:
        """Read back what `save` wrote."""

    def describe(self) -> str:
        """Say what, besides the value, an item's inputs depend on."""
        return ""


def flag(modality: str) -> str:
    """Name the input that says, bool [batch], which rows have a modality."""
    return f"has_{modality}"


def vectors(modality: str) -> str:
    """Name the tensor, float32 [batch, size], that training may give in place of a modality's inputs: it, encoded."""
    return f"{modality}_vectors"


def collate(readers: Mapping[str, Reader], items: Mapping[str, Sequence[Any | None]]) -> dict[str, Array]:
    """Make the graph's inputs for a batch, flags included.

    Args:
        items: by modality, the rows' items in order.
    """
    arrays: dict[str, Array] = {}
    for name, reader in readers.items():
        arrays |= reader.collate(items[name])
        arrays[flag(name)] = np.array([item is not None for item in items[name]], dtype=np.bool_)
    return arrays
