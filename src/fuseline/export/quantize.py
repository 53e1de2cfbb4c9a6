"""Write a graph in eight bits: matrix products measure their inputs as they run, convolutions beforehand.

Shape letters: V vocabulary, D size of an embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from fuseline.export.graph import save
from fuseline.runtime.predictor import Feeds

CARRIED = {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu"}
"""What goes on in eight bits behind a convolution."""


def write_int8(source: Path, target: Path, about: Mapping[str, str], feeds: Iterator[Feeds]) -> dict[str, int]:
    """Quantise the graph at `source`, of standard operators, to `target` and `target`.data, which has these too.

    Weights are signed and have the range of their channel, of seven bits: with eight, processors without VNNI
    overflow, and would answer otherwise than those where it was judged. Activations are unsigned. Embeddings have a
    range for each word.

    Args:
        feeds: the graph's inputs for rows to calibrate convolutions on.

    Returns:
        How many operators of each kind have weights in eight bits.

    Source: onnxruntime.quantization.
    """
    options: dict[str, Any] = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with TemporaryDirectory(dir=target.parent) as scratch, _quiet():
        part, whole = Path(scratch) / "dynamic.onnx", Path(scratch) / "whole.onnx"
        model = onnx.load(source)
        weights = {each.name for each in model.graph.initializer}  # over what is said of these the quantiser stumbles
        others = [each for each in model.graph.value_info if each.name not in weights]
        del model.graph.value_info[:]
        model.graph.value_info.extend(others)
        quantize_dynamic(model, part, ["MatMul"], use_external_data_format=True, **options)
        found = find_convolutions(onnx.load(part, load_external_data=False).graph)
        if found:
            quantize_static(
                part, whole, _Reader(feeds), QuantFormat.QDQ, sorted(set(found.values())),
                nodes_to_quantize=list(found), activation_type=QuantType.QUInt8, use_external_data_format=True,
                **options,
            )  # fmt: skip
        quantised = ir.load(whole if found else part)
        embeddings = quantise_embeddings(quantised.graph)
        save(quantised, target, about)
    products = sum(node.op_type == "MatMulInteger" for node in quantised.graph.all_nodes())
    counts = {"convolutions": [*found.values()].count("Conv"), "embeddings": embeddings, "products": products}
    return {name: count for name, count in counts.items() if count}


def quantise_embeddings(graph: ir.Graph) -> int:
    """Keep embeddings in eight bits with a scale for each word, and return how many lookups that were."""
    tables: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    lookups = [node for node in graph if node.op_type == "Gather" and _is_embedding(node)]
    for node in lookups:
        table, ids = node.inputs
        assert table is not None
        if table not in tables:
            tables[table] = _quantise_rows(graph, table)
        small, scales = (ir.node("Gather", [part, ids]) for part in tables[table])
        wide = ir.node("Cast", [small.outputs[0]], {"to": ir.DataType.FLOAT})
        scaled = ir.node("Mul", [wide.outputs[0], scales.outputs[0]])
        scaled.outputs[0].dtype, scaled.outputs[0].shape = ir.DataType.FLOAT, node.outputs[0].shape
        graph.insert_before(node, [small, scales, wide, scaled])
        ir.convenience.replace_all_uses_with(node.outputs[0], scaled.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)
    for table in tables:
        if not table.uses():
            assert table.name is not None
            del graph.initializers[table.name]
    return len(lookups)


def _is_embedding(node: ir.Node) -> bool:
    table = node.inputs[0]
    held = None if table is None else table.const_value
    axis = node.attributes.get_int("axis", 0)
    return held is not None and held.dtype == ir.DataType.FLOAT and len(held.shape) == 2 and axis == 0


def _quantise_rows(graph: ir.Graph, table: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return a table as int8 [V, D] and its rows' scales [V, 1]."""
    assert table.const_value is not None
    table_VD = table.const_value.numpy()
    scales_V1 = np.maximum(np.abs(table_VD).max(1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    small_VD = np.rint(table_VD / scales_V1).astype(np.int8)
    made = []
    for name, array in ((f"{table.name}_int8", small_VD), (f"{table.name}_scales", scales_V1)):
        held = ir.Tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(held.dtype), shape=ir.Shape(array.shape), const_value=held)
        graph.register_initializer(value)
        made.append(value)
    return made[0], made[1]


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
    """Keep out of the log what the quantiser advises, which was done, and says of masks' infinite ranges, not used."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with np.errstate(invalid="ignore"):
            yield
    finally:
        logger.setLevel(level)
