"""No number goes from the processor to a GPU inside a graph, which a CUDA graph could not capture.

onnxruntime computes on the processor what follows from shapes alone; that may end in inputs which the CUDA provider
takes from there, such as the shape of a Reshape, and in no other.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from fuseline.models.ensemble import Ensemble
from fuseline.records import Variant
from tests.export.test_combinations import as_variant, exported

__all__ = ["exported"]
TAKEN_FROM_THE_HOST = {
    "Range": {0, 1, 2}, "Expand": {1}, "Reshape": {1}, "Slice": {1, 2, 3, 4}, "ConstantOfShape": {0}, "Tile": {1},
    "Unsqueeze": {1}, "Squeeze": {1}, "Pad": {1}, "Resize": {1, 2, 3}, "TopK": {1}, "Split": {1}, "CumSum": {1},
    "Trilu": {1}, "ReduceSum": {1}, "ReduceMean": {1}, "ReduceMax": {1}, "ReduceMin": {1}, "OneHot": {1},
    "Clip": {1, 2},
}  # fmt: skip
"""By kind of node, which inputs the CUDA provider takes from the processor's memory."""


def find_crossings(model: ir.Model) -> list[str]:
    """Return the nodes that would be given on a GPU what was computed on the processor."""
    host, found = set[ir.Value](), list[str]()
    for node in model.graph:
        given = [
            (place, value) for place, value in enumerate(node.inputs) if value is not None and not _is_fixed(value)
        ]
        from_host = [place for place, value in given if value in host]
        taken = TAKEN_FROM_THE_HOST.get(node.op_type, set())
        if node.op_type in ("Shape", "Size") or (given and len(from_host) == len(given) and not taken & {*from_host}):
            host.update(node.outputs)
        else:
            found += [f"{node.name}: {node.op_type}, input {place}" for place in from_host if place not in taken]
    return found


def _is_fixed(value: ir.Value) -> bool:
    return value.const_value is not None or value.is_initializer()


@pytest.mark.parametrize("variant", ["fp32", "fused", "fp16"])
def test_no_number_goes_from_the_processor_to_a_gpu(
    variant: Variant, exported: tuple[Ensemble, Path], tmp_path: Path
) -> None:
    _, folder = exported
    assert find_crossings(ir.load(as_variant(variant, folder / "model.onnx", tmp_path))) == []
