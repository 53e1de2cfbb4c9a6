"""What is served and how it is timed: sections export and benchmark."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fuseline.config.base import Count, Section
from fuseline.records import System


class Export(Section):
    """The ONNX bundle."""

    system: System
    """What the bundle holds, and is published; the other, where there is a student, is exported and timed beside it."""
    opset: Annotated[int, Field(ge=18)]
    parity_batch_sizes: Annotated[list[Count], Field(min_length=1)]
    """Batch sizes at which the graph is compared with torch on all test rows."""


class Benchmark(Section):
    """How the bundle is timed."""

    providers: Annotated[list[str], Field(min_length=1)]
    """onnxruntime execution providers in order of preference."""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    threads: Count
    """Threads inside one operator."""
    warmup: Count
    """Calls that are not counted."""
    calls: Count
    """Calls that are counted, per batch size."""
