"""Write the ensemble as one ONNX graph."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor

from fuseline.errors import ExportError
from fuseline.inputs.base import Input
from fuseline.models.ensemble import Ensemble

OUTPUTS = ("probabilities", "logits", "members")
TRACED = {"batch": 2, "tokens": 7, "pictures": 3, "height": 48, "width": 40, "samples": 4000, "words": 5}
"""Sizes of the axes where the graph is traced: none is 0 or 1, which would be fixed."""


def write_graph(ensemble: Ensemble, opset: int, path: Path) -> None:
    """Export to `path` and `path`.data, every named axis of any size; it has the inputs that the members use.

    Raises:
        ExportError: the exporter or the checker refused, or gave another opset than asked for.
    """
    inputs = ensemble.inputs
    example = {name: example_input(each) for name, each in inputs.items()}
    shapes = {
        name: {number: axis for number, axis in enumerate(each.axes) if isinstance(axis, str)}
        for name, each in inputs.items()
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():  # scores of attention with a gradient are traced as another kernel
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            ensemble.eval(), (), kwargs=example, dynamo=True, verbose=False, opset_version=opset,
            dynamic_shapes={"inputs": shapes}, input_names=list(example), output_names=list(OUTPUTS),
        )  # fmt: skip
    assert program is not None
    model = program.model
    found = model.opset_imports.get("")
    if found != opset:
        raise ExportError(f"export.opset: asked for {opset}, but the exporter wrote {found}")
    program.save(str(path), external_data=True)
    _clean(path)


def example_input(given: Input) -> Tensor:
    """Make an input of the sizes that the graph is traced at."""
    shape = [axis if isinstance(axis, int) else TRACED[axis] for axis in given.axes]
    return torch.full(shape, given.traced, dtype=getattr(torch, given.dtype))


def _clean(path: Path) -> None:
    """Drop node metadata (local paths, a thousand of them) and check the graph."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
