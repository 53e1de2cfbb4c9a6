"""The split that a file's place or name in a batch tells."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from fuseline.data.cells import SPLIT_NAMES


def splits_of(names: Sequence[str]) -> list[str | None]:
    """Return the split of each file of a batch: that of its folder, or that of its own name.

    A name is taken at its word only where another file is named for another split: `train.jsonl` alone is a batch like
    any other.
    """
    told = [split_of_stem(name) for name in names]
    if len(set(told) - {None}) < 2:
        told = [None] * len(names)
    return [split_of_folder(name) or split for name, split in zip(names, told, strict=True)]


def split_of_folder(name: str) -> str | None:
    """Return the split that the innermost folder with a split's name tells."""
    found = [SPLIT_NAMES[part] for part in posixpath.dirname(name).lower().split("/") if part in SPLIT_NAMES]
    return found[-1] if found else None


def split_of_stem(name: str) -> str | None:
    """Return the split that a word of a file's own name tells."""
    words = re.findall(r"[a-z]+", posixpath.basename(name).lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
