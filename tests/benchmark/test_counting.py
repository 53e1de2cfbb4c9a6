"""Arithmetic and bytes of each kind of node, counted from real profiles of graphs of one node, are those by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fuseline.benchmark.counting import Node, read_profile
from fuseline.errors import BundleError

MICROSOFT = "com.microsoft"
F, U, S = np.float32, np.uint8, np.int8


def profile(
    tmp_path: Path, kind: str, given: list[np.ndarray[Any, Any]], fixed: tuple[int, ...] = (), domain: str = "",
    **attributes: Any,
) -> list[Node]:  # fmt: skip
    """Run a graph of one node, with some of its inputs fixed as weights; return what its profile holds."""
    names = [f"x{number}" for number in range(len(given))]
    open_ = [number for number in range(len(given)) if number not in fixed]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], domain=domain, **attributes)],
        kind,
        [helper.make_tensor_value_info(names[n], helper.np_dtype_to_tensor_dtype(given[n].dtype), given[n].shape)
         for n in open_],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(given[n], names[n]) for n in fixed],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    settings = ort.SessionOptions()
    settings.enable_profiling, settings.profile_file_prefix = True, str(tmp_path / "profile")
    settings.add_session_config_entry("session.disable_prepacking", "1")
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    session.run(None, {names[n]: given[n] for n in open_})
    return read_profile(Path(session.end_profiling()))


def f(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, F)


SCALE, ZERO_U, ZERO_S = np.array(0.1, F), np.array(1, U), np.array(0, S)
CASES: dict[str, tuple[dict[str, Any], float, str]] = {
    "a product, also in batches": ({"kind": "MatMul", "given": [f(2, 5, 7), f(7, 3)]}, 2 * 2 * 5 * 7 * 3, "fp32"),
    "a product whose left side is turned": (
        {"kind": "FusedMatMul", "given": [f(7, 5), f(7, 3)], "domain": MICROSOFT, "transA": 1}, 2 * 5 * 7 * 3, "fp32",
    ),
    "Gemm": ({"kind": "Gemm", "given": [f(5, 7), f(7, 3), f(3)], "fixed": (1, 2)}, 2 * 5 * 7 * 3, "fp32"),
    "Gemm, turned": ({"kind": "Gemm", "given": [f(7, 5), f(3, 7)], "transA": 1, "transB": 1}, 2 * 5 * 7 * 3, "fp32"),
    "a convolution": (
        {"kind": "Conv", "given": [f(2, 6, 9, 9), f(4, 6, 3, 3)], "pads": [1] * 4}, 2 * 2 * 4 * 9 * 9 * 6 * 9, "fp32",
    ),
    "a convolution in groups": (
        {"kind": "Conv", "given": [f(1, 6, 9, 9), f(6, 1, 3, 3)], "group": 6}, 2 * 6 * 7 * 7 * 9, "fp32",
    ),
    "a convolution over time": (
        {"kind": "Conv", "given": [f(1, 3, 20), f(8, 3, 5)], "strides": [2]}, 2 * 8 * 8 * 3 * 5, "fp32",
    ),
    "MatMulInteger": (
        {"kind": "MatMulInteger", "given": [np.ones((5, 7), U), np.ones((7, 3), S)], "fixed": (1,)},
        2 * 5 * 7 * 3, "int8",
    ),
    "DynamicQuantizeMatMul": (
        {"kind": "DynamicQuantizeMatMul", "domain": MICROSOFT, "fixed": (1, 2, 3),
         "given": [f(5, 7), np.ones((7, 3), S), SCALE, ZERO_S]}, 2 * 5 * 7 * 3, "int8",
    ),
    "QLinearMatMul": (
        {"kind": "QLinearMatMul", "fixed": (3, 4, 5),
         "given": [np.ones((5, 7), U), SCALE, ZERO_U, np.ones((7, 3), S), SCALE, ZERO_S, SCALE, ZERO_U]},
        2 * 5 * 7 * 3, "int8",
    ),
    "QLinearConv": (
        {"kind": "QLinearConv", "fixed": (1, 2, 3, 4, 5, 6, 7),
         "given": [np.ones((2, 6, 9, 9), U), SCALE, ZERO_U, np.ones((4, 6, 3, 3), S), SCALE, ZERO_S, SCALE, ZERO_U]},
        2 * 2 * 4 * 7 * 7 * 6 * 9, "int8",
    ),
    "ConvInteger": (
        {"kind": "ConvInteger", "given": [np.ones((2, 6, 9, 9), U), np.ones((4, 6, 3, 3), U)]},
        2 * 2 * 4 * 7 * 7 * 6 * 9, "int8",
    ),
    "attention of fused heads": (
        {"kind": "MultiHeadAttention", "given": [f(2, 5, 8), f(2, 6, 8), f(2, 6, 8)], "domain": MICROSOFT,
         "num_heads": 2}, 2 * 2 * 5 * 6 * (8 + 8), "fp32",
    ),
    "attention with its projection": (
        {"kind": "Attention", "given": [f(2, 5, 8), f(8, 24), f(24)], "fixed": (1, 2), "domain": MICROSOFT,
         "num_heads": 2}, 2 * 2 * 5 * 8 * 24 + 4 * 2 * 5 * 5 * 8, "fp32",
    ),
    "LSTM": (
        {"kind": "LSTM", "given": [f(6, 2, 5), f(1, 12, 5), f(1, 12, 3)], "hidden_size": 3},
        2 * 6 * 2 * (12 * 5 + 12 * 3), "fp32",
    ),
    "what goes element by element": ({"kind": "Relu", "given": [f(5, 7)]}, 0, "fp32"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_is_counted_of(case: str, tmp_path: Path) -> None:
    made, flops, dtype = CASES[case]
    nodes = [node for node in profile(tmp_path, **made) if node.kind == made["kind"]]
    assert [(node.flops, node.dtype) for node in nodes] == [(flops, dtype)]
    assert nodes[0].ms >= 0


@pytest.mark.parametrize(
    ("kind", "given", "moved"),
    [
        ("Relu", [f(5, 7)], 2 * 4 * 35),
        ("MatMul", [f(5, 7), f(7, 3)], 4 * (35 + 21 + 15)),
        ("Gather", [f(1000, 8), np.array([1, 2, 3])], 2 * 4 * 24),
        ("Reshape", [f(5, 7), np.array([7, 5])], 0),
    ],
    ids=["what goes in and comes out", "a product", "of a table what is read of it", "a view moves nothing"],
)
def test_the_bytes_are_counted_of(kind: str, given: Any, moved: int, tmp_path: Path) -> None:
    (node,) = profile(tmp_path, kind, given)
    assert node.moved_bytes == moved


def test_what_may_hide_arithmetic_is_not_taken_for_none(tmp_path: Path) -> None:
    (node,) = profile(tmp_path, "Einsum", [f(5, 7), f(7, 3)], equation="ij,jk->ik")
    assert node.flops is None


def test_a_profile_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("[]")
    with pytest.raises(BundleError, match="holds no run"):
        read_profile(tmp_path / "profile.json")
