"""What is served and how it is timed: sections export and benchmark."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from fuseline.config.base import Count, Section
from fuseline.records import System, Variant

OPSETS = range(18, 23)
"""Those in which every variant is written and answers as torch. From 23 on attention is one node, which onnxruntime
1.31 refuses to run where the mask is the same for all tokens that look."""


class Export(Section):
    """The ONNX bundle."""

    system: System
    """What the bundle holds, and is published; the other, where there is a student, is exported and timed beside it, in
    the same variant unless that costs it more than `max_drop`."""
    opset: Annotated[int, Field(ge=OPSETS[0], le=OPSETS[-1])]
    """Version of ONNX's operators: an older one is run by more runtimes."""
    parity_batch_sizes: Annotated[list[Count], Field(min_length=1)]
    """Batch sizes at which each graph is compared with torch on all test rows."""
    variants: Annotated[list[Variant], Field(min_length=1)]
    """How the graph is written, the one to be published first: `fp32`, which is always there, in ONNX's own operators;
    `fused`, with those of onnxruntime; `int8`; `fp16`, for GPUs."""
    max_drop: Annotated[float, Field(ge=0, le=1)]
    """How much of the headline metric on the test rows a variant may cost: the bundle holds the first that costs no
    more, and `fp32` where none does. The others stand in build/export/variants."""
    calibration_rows: Count
    """Training rows on which ranges for eight bits are measured."""

    @field_validator("variants")
    @classmethod
    def _check_variants(cls, variants: list[Variant]) -> list[Variant]:
        if "fp32" not in variants or len(set(variants)) < len(variants):
            raise ValueError("expected fp32 among the variants, and each of them once")
        return variants


class Offline(Section):
    """MLPerf's scenario in which all rows are there at once."""

    rows: Count
    """Answered in one call."""
    calls: Count


class Server(Section):
    """MLPerf's scenario in which rows arrive by chance, whether the server has finished the last ones or not."""

    rates: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Rows that arrive in a second, on average (a Poisson process); each is tried."""
    rows: Count
    """How many arrive at each rate."""
    largest_batch: Count
    """Rows that wait are answered together, up to this many; 1 answers one by one."""


class Cuda(Section):
    """How a graph is run where a GPU runs it; without one nothing here has an effect."""

    io_binding: bool
    """Inputs and outputs are bound to the device, so that copies are timed apart."""
    pinned: bool
    """With io_binding: inputs are copied from memory whose pages are locked."""
    graph: bool
    """With io_binding: a CUDA graph is captured for each set of shapes. Every node has to run on the GPU."""
    tf32: bool
    """Whether products of float32 may be computed in TF32; torch beside it does the same."""

    @model_validator(mode="after")
    def _binds_what_goes_by_binding(self) -> Self:
        if not self.io_binding and (self.pinned or self.graph):
            raise ValueError("pinned and graph go by io_binding; set it to true")
        return self


class Rehearse(Section):
    """How the bundle is tried in a clean environment."""

    rows: Annotated[int, Field(ge=1)]
    """About how many golden rows are asked; at least one of each set of modalities."""


class Benchmark(Section):
    """How the bundle is timed."""

    providers: Annotated[list[str], Field(min_length=1)]
    """onnxruntime execution providers in order of preference."""
    rows: Count
    """Test rows, at most, that the calls go round in: enough to vary in length and size."""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    threads: Count
    """Threads inside one operator."""
    warmup: Count
    """Calls that are not counted, per bundle and batch size."""
    calls: Count
    """Calls that are counted, per bundle and batch size; p99 takes 299."""
    offline: Offline | None
    """null leaves the scenario out."""
    server: Server | None
    """null leaves the scenario out."""
    roofline: Count | None
    """Calls of the graph beside products of matrices that show what the machine can do; null leaves it out."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Of the intervals of percentiles and ratios."""
    seed: Annotated[int, Field(ge=0)]
    """Deals arrivals, and the order in which bundles take turns."""
    cuda: Cuda
