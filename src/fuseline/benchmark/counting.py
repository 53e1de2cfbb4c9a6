"""Count arithmetic and bytes of a graph, node by node, as onnxruntime runs it: fused, at the shapes of one call.

onnxruntime's profile has of each node that ran its kind, its provider, and types and shapes of what went in and came
out, so no shape has to be inferred. A multiplication and an addition are two; what a node does element by element is
not counted as arithmetic, but moves bytes.

Shape letters: B batch, S tokens that ask, L tokens that are asked, H width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.errors import BundleError

Shape = Sequence[int]
Count = Callable[[Sequence[Shape], Sequence[Shape]], float]
TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "int8": "int8", "uint8": "int8"}
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size"}
"""These move nothing."""
PICKS = {"Gather", "GatherElements", "GatherND", "Slice", "Expand", "EmbedLayerNormalization", "Split"}
"""These read as much as they write, however large what they pick from is."""


@dataclass(frozen=True)
class Node:
    """One node of one call."""

    kind: str
    dtype: str
    flops: float | None
    """None where it may hold arithmetic, and nobody has said how much."""
    moved_bytes: float
    ms: float


def _product(a: int = 0) -> Count:
    """Count a product of matrices whose left one is input `a`, turned or not."""

    def count(given: Sequence[Shape], out: Sequence[Shape]) -> float:
        left, made = given[a], out[0]
        turned = len(left) > 1 and len(made) > 1 and left[-2] != made[-2] and left[-1] == made[-2]
        return 2 * math.prod(made) * left[-2 if turned else -1]

    return count


def _gemm(given: Sequence[Shape], out: Sequence[Shape]) -> float:
    return 2 * math.prod(out[0]) * math.prod(given[0]) / out[0][0]


def _convolution(weights: int = 1) -> Count:
    """Count a convolution; of its weights, [out, in / groups, …], each output reads one row."""
    return lambda given, out: 2 * math.prod(out[0]) * math.prod(given[weights][1:])


def _spread(given: Sequence[Shape], out: Sequence[Shape]) -> float:
    return 2 * math.prod(given[0]) * math.prod(given[1][1:])


def _attention(given: Sequence[Shape], out: Sequence[Shape]) -> float:
    """Count scores and weighted sums; queries, keys and values are [B, S, H], or [B, heads, S, H / heads]."""
    asked = given[1][-2]
    return 2 * asked * (math.prod(given[0]) + math.prod(out[0]))


def _projected_attention(given: Sequence[Shape], out: Sequence[Shape]) -> float:
    """Count the projection of [B, S, H] to queries, keys and values too."""
    tokens, (width, three) = math.prod(given[0][:-1]), given[1]
    return 2 * tokens * width * three + 4 * tokens * given[0][1] * out[0][-1]


def _recurrent(given: Sequence[Shape], out: Sequence[Shape]) -> float:
    steps, rows = given[0][:2]
    return 2 * steps * rows * (math.prod(given[1]) + math.prod(given[2]))


COUNTS: Mapping[str, Count] = {
    "MatMul": _product(), "FusedMatMul": _product(), "TransposeMatMul": _product(), "MatMulInteger": _product(),
    "MatMulIntegerToFloat": _product(), "DynamicQuantizeMatMul": _product(), "MatMulNBits": _product(),
    "QLinearMatMul": _product(),
    "Gemm": _gemm, "FusedGemm": _gemm, "QGemm": _gemm,
    "Conv": _convolution(), "FusedConv": _convolution(), "NhwcConv": _convolution(), "NhwcFusedConv": _convolution(),
    "ConvInteger": _convolution(), "QLinearConv": _convolution(3), "ConvTranspose": _spread,
    "Attention": _attention, "MultiHeadAttention": _attention, "QAttention": _projected_attention,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
}  # fmt: skip
IN_INT8 = {"DynamicQuantizeMatMul": "int8"}
"""Nodes that compute in another type than their first input has."""
HIDING = ("Scan", "Loop", "If", "Einsum", "Matmul", "MatMul", "Conv", "Gemm", "Attention", "FusedNode")
"""Names of kinds that may hold arithmetic begin or end so."""


def read_profile(file: Path) -> list[Node]:
    """Return the nodes of the last call in an onnxruntime profile.

    Raises:
        BundleError: it holds no nodes.
    """
    events = [
        event for event in json.loads(file.read_text(encoding="utf-8")) if event.get("cat") in ("Node", "Session")
    ]
    runs = [event for event in events if event["name"] == "model_run"]
    if not runs:
        raise BundleError(f"{file}: onnxruntime's profile holds no run, so that nothing can be counted")
    start, end = runs[-1]["ts"], runs[-1]["ts"] + runs[-1]["dur"]
    return [
        _node(event["args"], event["dur"] / 1000)
        for event in events
        if event["cat"] == "Node" and start <= event["ts"] <= end and "output_type_shape" in event["args"]
    ]


def _node(told: Mapping[str, Any], ms: float) -> Node:
    kind = told["op_name"]
    (given, types), (made, _) = _split(told["input_type_shape"]), _split(told["output_type_shape"])
    dtype = IN_INT8.get(kind) or TYPES.get(types[0] if types else "", "other")
    moved = sum(int(told[key]) for key in ("activation_size", "parameter_size", "output_size"))
    if kind in VIEWS:
        moved = 0
    elif kind in PICKS:
        moved = 2 * int(told["output_size"])
    return Node(kind, dtype, _count(kind, given, made), moved, ms)


def _split(told: Sequence[Mapping[str, Shape]]) -> tuple[list[Shape], list[str]]:
    pairs = [(shape, dtype) for one in told for dtype, shape in one.items()]
    return [shape for shape, _ in pairs], [dtype for _, dtype in pairs]


def _count(kind: str, given: Sequence[Shape], made: Sequence[Shape]) -> float | None:
    if kind == "Attention" and len(given[0]) == 3 and len(given[1]) == 2:  # onnxruntime's own of that name
        return _projected_attention(given, made)
    if kind in ("Attention", "MultiHeadAttention") and not (len(given) > 1 and len(given[0]) == len(given[1])):
        return None  # queries, keys and values in one
    if kind in COUNTS:
        return COUNTS[kind](given, made)
    return None if kind.startswith(HIDING) or kind.endswith(HIDING) else 0.0
