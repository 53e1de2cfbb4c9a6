"""Write a graph in eight bits: matrix products measure their inputs as they run, convolutions beforehand."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from fuseline.export.graph import save
from fuseline.runtime.predictor import Feeds

CARRIED = {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu"}
"""What goes on in eight bits behind a convolution."""
EIGHT_BITS = ("MatMulInteger", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def write_int8(source: Path, target: Path, about: Mapping[str, str], feeds: Iterator[Feeds]) -> dict[str, int]:
    """Quantise the graph at `source`, of standard operators, to `target` and `target`.data, which has these too.

    Weights are signed and have the range of their channel, of seven bits: with eight, processors without VNNI
    overflow, and would answer otherwise than those where it was judged. Activations are unsigned.

    Args:
        feeds: the graph's inputs for rows to calibrate convolutions on.

    Returns:
        How many operators of each kind hold or make eight bits.

    Source: onnxruntime.quantization.
    """
    options: dict[str, Any] = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with TemporaryDirectory(dir=target.parent) as scratch, _quiet():
        part, whole = Path(scratch) / "dynamic.onnx", Path(scratch) / "whole.onnx"
        model = onnx.load(source)
        del model.graph.value_info[:]  # the quantiser stumbles over what the exporter says of weights
        quantize_dynamic(model, part, ["MatMul", "Gather"], use_external_data_format=True, **options)
        found = find_convolutions(onnx.load(part, load_external_data=False).graph)
        if found:
            quantize_static(
                part, whole, _Reader(feeds), QuantFormat.QDQ, sorted(set(found.values())),
                nodes_to_quantize=list(found), activation_type=QuantType.QUInt8, use_external_data_format=True,
                **options,
            )  # fmt: skip
        quantised = ir.load(whole if found else part)
        save(quantised, target, about)
    counts = Counter(node.op_type for node in quantised.graph.all_nodes())
    return {name: counts[name] for name in sorted(EIGHT_BITS) if counts[name]}


def find_convolutions(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the kinds of convolutions and of what carries on from them alone, by name of the node."""
    constant = {each.name for each in graph.initializer} | {
        name for node in graph.node if node.op_type == "Constant" for name in node.output
    }
    made, found = set[str](), {}
    for node in graph.node:
        given = [name for name in node.input if name and name not in constant]
        if node.op_type == "Conv" or (node.op_type in CARRIED and given and made.issuperset(given)):
            made.update(node.output)
            found[node.name] = node.op_type
    return found


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out inputs one by one, as calibration asks for them."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feeds | None:
        return next(self.feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which is about what was done already, out of the log."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
