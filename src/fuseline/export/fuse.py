"""Write a graph with onnxruntime's own operators: attention, norms and activations as one node each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.ort_fusions._core import fuse_xformers
from onnxscript.rewriter.rules.common import gemm_to_matmul_add_rule

from fuseline.export.graph import save

OWN = "com.microsoft"
ATTENTIONS = {"Attention", "MultiHeadAttention"}


def write_fused(source: Path, target: Path, about: Mapping[str, str]) -> dict[str, int]:
    """Rewrite the graph at `source` to `target` and `target`.data; return how many own nodes it has, by kind."""
    model, counts = fuse(ir.load(source))
    save(model, target, about)
    return counts


def fuse(model: ir.Model) -> tuple[ir.Model, dict[str, int]]:
    """Put onnxruntime's operators where they fit, and count them by kind.

    Source: onnxscript's rewriter, without its FusedMatMul, which onnxruntime refuses to run on some graphs.
    onnxruntime's own optimiser finds no attention in a graph of torch's exporter.
    """
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    rewrite(model, [gemm_to_matmul_add_rule])
    model, _ = fuse_xformers(model)
    flatten_attentions(model.graph)
    counts = Counter(node.op_type for node in model.graph.all_nodes() if node.domain == OWN)
    return model, dict(sorted(counts.items()))


def flatten_attentions(graph: ir.Graph) -> None:
    """Bring to two axes what attention gives where two are expected of it.

    GPT-2's kin goes on with all tokens in a row. The rewriter takes that for the reshaping that is part of attention,
    whose node always gives three axes: batch, tokens, size.
    """
    for node in [node for node in graph if node.op_type in ATTENTIONS and node.domain == OWN]:
        flat = node.outputs[0]
        if flat.shape is not None and flat.dtype is not None and len(flat.shape) == 2:
            axes = ir.Value(name=f"{flat.name}_axes", const_value=ir.tensor(np.array([-1, flat.shape[1]], np.int64)))
            axes.dtype, axes.shape = ir.DataType.INT64, ir.Shape([2])
            graph.register_initializer(axes)
            whole = ir.node(
                node.op_type, node.inputs, dict(node.attributes), domain=node.domain, num_outputs=len(node.outputs)
            )
            whole.outputs[0].dtype = flat.dtype
            reshape = ir.node("Reshape", [whole.outputs[0], axes])
            reshape.outputs[0].dtype, reshape.outputs[0].shape = flat.dtype, flat.shape
            graph.insert_before(node, [whole, reshape])
            ir.convenience.replace_all_uses_with(flat, reshape.outputs[0])
            graph.remove(node, safe=True)
