"""Write a graph in half precision, for GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fuseline.export.fuse import fuse
from fuseline.export.graph import MEMBERS, save

BIG = 4096
"""Elements of weights from which on halving them is worth it; what lies between two such operators goes along."""
SINGLE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
Nodes = set[ir.Node]


def write_fp16(source: Path, target: Path, about: Mapping[str, str]) -> dict[str, int]:
    """Convert the graph at `source`, of standard operators, to `target` and `target`.data, and fuse it.

    What lies between members' weights runs in half precision. Pictures are resized before, and members combined
    behind, in single: positions in large pictures and logarithms of small probabilities need it. So do spectrograms:
    the energies of a quiet recording are below what half precision can tell from nothing, and what is nothing has no
    logarithm; those of a loud one may be beyond its range. Inputs and outputs stay as they are.

    Returns:
        How many operators run in half precision, and how many nodes of onnxruntime's own there are, by kind.
    """
    model = ir.load(source)
    chosen = find_halved(model.graph)
    halve(model.graph, chosen)
    model, counts = fuse(model)
    save(model, target, about)
    return {"half": len(chosen)} | counts


def find_halved(graph: ir.Graph) -> Nodes:
    """Return the nodes of members that have big weights, and those between them, but for what leads to a logarithm.

    A spectrogram's Fourier transform and filters are big too, and no weights that were learned: all that tells them
    apart in a graph is the logarithm that they lead to. A member that has one elsewhere stays single up to there.
    """
    nodes = list(graph)
    (members,) = (output.producer() for output in graph.outputs if output.name == MEMBERS)
    assert members is not None
    ours = _reach(reversed(nodes), {members}, backwards=True)
    ours -= lead_to_logarithms([node for node in nodes if node in ours])
    heavy = {node for node in nodes if node in ours and any(_is_big(value) for value in node.inputs)}
    return heavy | (_reach(nodes, heavy) & _reach(reversed(nodes), heavy, backwards=True) & ours)


def lead_to_logarithms(nodes: Sequence[ir.Node]) -> Nodes:
    """Return the logarithms and all from which they are computed; of sizes nothing is, so that integers count not."""
    values, found = set[ir.Value | None](), Nodes()
    for node in reversed(nodes):
        if node.op_type == "Log" or values.intersection(node.outputs):
            found.add(node)
            values.update(value for value in node.inputs if value is not None and value.dtype == SINGLE)
    return found


def _is_big(value: ir.Value | None) -> bool:
    held = None if value is None else value.const_value
    return held is not None and held.dtype == SINGLE and held.size >= BIG


def _reach(nodes: Iterable[ir.Node], start: Nodes, backwards: bool = False) -> Nodes:
    """Return the nodes behind some of `start`, or before; `nodes` come in the order of their running, or against it."""
    values, found = set[ir.Value | None](), Nodes()
    for node in nodes:
        into, out = (node.outputs, node.inputs) if backwards else (node.inputs, node.outputs)
        if values.intersection(into):
            found.add(node)
        if node in found or node in start:
            values.update(value for value in out if value is not None)
    return found


def halve(graph: ir.Graph, chosen: Nodes) -> None:
    """Let these nodes take and give half precision, with casts where others meet them."""
    casts: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node in chosen:
            for place, value in enumerate(node.inputs):
                if value is not None and value.dtype == SINGLE:
                    if value not in casts:
                        casts[value] = _halved(graph, value, node)
                    node.replace_input_with(place, casts[value])
            _halve_attributes(node)
            for value in [output for output in node.outputs if output.dtype == SINGLE]:
                value.dtype = HALF
    for node in [node for node in graph if node in chosen]:
        for value in [output for output in node.outputs if output.dtype == HALF]:
            _widen(graph, value, node, chosen)


def _halved(graph: ir.Graph, value: ir.Value, before: ir.Node) -> ir.Value:
    if value.const_value is None:
        cast = _cast(value, HALF)
        graph.insert_before(before, cast)
        return cast.outputs[0]
    array = _narrow(value.const_value)
    own = ir.Value(name=f"{value.name}_half", type=ir.TensorType(HALF), shape=value.shape)
    own.const_value = ir.Tensor(array, name=own.name)
    graph.register_initializer(own)
    return own


def _narrow(held: ir.TensorProtocol) -> NDArray[np.float16]:
    """Return half precision; what is beyond its range becomes the end of it."""
    ends = np.finfo(np.float16)
    narrow: NDArray[np.float16] = np.clip(held.numpy(), ends.min, ends.max).astype(np.float16)
    return narrow


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": to}, name=f"{value.name}_to_{to.name.lower()}")
    (found,) = node.outputs
    found.name, found.dtype, found.shape = node.name, to, value.shape
    return node


def _halve_attributes(node: ir.Node) -> None:
    """Let a node that makes single precision make half."""
    for name, each in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and each.value == SINGLE:
            node.attributes[name] = ir.AttrInt64(name, HALF)
        elif each.type == ir.AttributeType.TENSOR and each.value.dtype == SINGLE:
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(_narrow(each.value)))


def _widen(graph: ir.Graph, value: ir.Value, maker: ir.Node, chosen: Nodes) -> None:
    """Give single precision to those outside that take this value."""
    takers = [use for use in value.uses() if use.node not in chosen]
    assert value not in graph.outputs, "what is answered is combined in single precision"
    if takers:
        wide = _cast(value, SINGLE)
        graph.insert_after(maker, wide)
        for node, place in takers:
            node.replace_input_with(place, wide.outputs[0])
