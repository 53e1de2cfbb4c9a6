"""What the page tells of the graph: how far it is from torch, and the ways in which it was written."""

from __future__ import annotations

from collections.abc import Mapping

from fuseline.records import Parity
from fuseline.report import numbers
from fuseline.report.tables import METRICS, Table

TELLS = {
    "fp32": "single precision, with ONNX's own operators",
    "fused": "single precision, with onnxruntime's operators",
    "fp16": "half precision, with onnxruntime's operators, for GPUs",
    "int8": "eight bits, with ONNX's own operators",
}


def facts(parity: Parity) -> Mapping[str, str]:
    """Say how far the graph in single precision is from torch."""
    return {
        "Rows compared": f"{parity.rows:,}",
        "Batch sizes": ", ".join(map(str, parity.batch_sizes)),
        "Largest logit difference": f"{parity.max_logit_difference:.2e}",
        "As a share of the largest logit": f"{parity.relative_logit_difference:.2e}",
        "Same predicted label": f"{100 * parity.argmax_agreement:.2f} %",
        "Nodes as torch's exporter wrote them": f"{parity.traced_nodes:,}",
        "This bundle": TELLS[parity.published],
        "Its label as evaluated": f"{100 * parity.evaluation_agreement:.2f} %",
    }


def variants(parity: Parity) -> Table:
    """Set the ways in which the graph was written beside each other: the published one first, dropped ones last."""
    names = sorted(parity.variants, key=lambda name: name != parity.published)
    rows = []
    for name in names:
        each = parity.variants[name]
        rows.append([
            f"{name} (this bundle)" if name == parity.published else name, numbers.metric(each.value),
            f"{round(-each.drop, 3) + 0.0:+.3f}", f"{100 * each.argmax_agreement:.1f} %",
            f"{each.max_logit_difference:.1e}",
            numbers.size(each.model_bytes), f"{each.nodes:,}", _tell_operators(each.operators),
        ])  # fmt: skip
    rows += [[f"{name} (dropped)", *[numbers.DASH] * 6, why] for name, why in parity.dropped.items()]
    return Table(
        "How the graph was written, against torch",
        (
            ("Variant", "text"), (METRICS[parity.metric], "number"), ("Against torch", "number"),
            ("Same label", "number"), ("Largest logit difference", "number"), ("Size", "number"), ("Nodes", "number"),
            ("What was done", "text"),
        ),
        rows,
    )  # fmt: skip


def _tell_operators(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items()) or "as exported"
