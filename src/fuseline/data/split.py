"""Deal examples to train, val and test by a stable hash of their group."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "val", "test")


def split_of(group: str, salt: str, val: float, test: float) -> str:
    """Return the split of a group: the same for ever, whatever other groups there are."""
    position = _position(f"{salt}/{group}")
    if position < test:
        return "test"
    return "val" if position < test + val else "train"


def _position(key: str) -> float:
    """Map a key to [0, 1), uniformly."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
