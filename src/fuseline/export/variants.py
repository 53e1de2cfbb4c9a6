"""The ways in which a graph is written, made from the one of ONNX's own operators; and which of them is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fuseline.export.fuse import write_fused
from fuseline.export.half import write_fp16
from fuseline.export.quantize import write_int8
from fuseline.records import Exported, Variant
from fuseline.runtime.predictor import Feeds, Predictor
from fuseline.runtime.rows import Prepared

SLACK = 1e-9
"""Of floating-point sums, where a drop is compared with what is allowed."""


def write_variant(
    variant: Variant, source: Path, target: Path, about: Mapping[str, str], feeds: Callable[[], Iterator[Feeds]]
) -> dict[str, int]:
    """Write the graph at `source` in another way.

    Args:
        about: what the file says of itself.
        feeds: gives the graph's inputs for rows to calibrate on.

    Returns:
        What was done, by kind.
    """
    if variant == "fused":
        return write_fused(source, target, about)
    if variant == "fp16":
        return write_fp16(source, target, about)
    assert variant == "int8"
    return write_int8(source, target, about, feeds())


def calibrate(bundle: Path, split: Path, rows: int) -> Iterator[Feeds]:
    """Return a graph's inputs for so many rows of a split, at most, spread over all that a bundle can answer."""
    predictor = Predictor(bundle, public_key=None)
    there = Prepared.of(split, predictor.bundle)
    count = len(there)
    chosen = {number * count // rows for number in range(rows)}
    return predictor.feeds_of(row for number, row in enumerate(there) if number in chosen)


def choose(preferred: Sequence[Variant], found: Mapping[Variant, Exported], max_drop: float) -> Variant:
    """Return the first variant that costs no more of the headline metric than allowed, `fp32` where none does.

    Not `fp16`: what it costs is a matter of the GPU that runs it, and found here on a processor, which computes wider.

    Args:
        found: those that were dropped are not in it.
    """
    measured = [name for name in preferred if name in found and name != "fp16"]
    return next((name for name in measured if found[name].drop <= max_drop + SLACK), "fp32")
