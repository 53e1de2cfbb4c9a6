"""Write a graph with onnxruntime's own operators: attention, norms and activations as one node each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from fuseline.export.graph import save


def write_fused(source: Path, target: Path, about: Mapping[str, str]) -> dict[str, int]:
    """Rewrite the graph at `source` to `target` and `target`.data.

    Returns:
        How often each kind of fusion was made, of those that were.

    Source: onnxscript's rewriter; onnxruntime's own optimiser finds no attention in a graph of torch's exporter.
    """
    model, counts = optimize_for_ort(ir.load(source))
    save(model, target, about)
    return {name: count for name, count in sorted(counts.items()) if count}
