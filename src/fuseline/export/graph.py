"""Write the ensemble as one ONNX graph of standard operators."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from fuseline.errors import ExportError
from fuseline.inputs.base import Input
from fuseline.models.ensemble import Ensemble

MEMBERS = "members"
OUTPUTS = ("probabilities", "logits", MEMBERS)
TRACED = {"batch": 2, "tokens": 7, "pictures": 3, "height": 48, "width": 40, "samples": 4000, "words": 5}
"""Sizes of the axes where the graph is traced: none is 0 or 1, which would be fixed."""


def write_graph(ensemble: Ensemble, opset: int, path: Path, about: Mapping[str, str] | None = None) -> int:
    """Export to `path` and `path`.data, every named axis of any size; it has the inputs that the members use.

    Args:
        about: what the file says of itself, its metadata.

    Returns:
        The number of nodes as traced.

    Raises:
        ExportError: the exporter or the checker refused, or gave another opset than asked for.
    """
    model = trace(ensemble, opset)
    traced = count_nodes(model)
    share(model)
    save(model, path, about or {})
    return traced


def trace(ensemble: Ensemble, opset: int) -> ir.Model:
    """Return the graph as torch's exporter writes it."""
    inputs = ensemble.inputs
    example = {name: example_input(each) for name, each in inputs.items()}
    shapes = tuple(
        {number: axis for number, axis in enumerate(each.axes) if isinstance(axis, str)} for each in inputs.values()
    )
    for chatty in ("torch.onnx", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():  # scores of attention with a gradient are traced as another kernel
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            InOrder(ensemble).eval(), tuple(example.values()), dynamo=True, verbose=False, opset_version=opset,
            dynamic_shapes={"inputs": shapes}, input_names=list(example), output_names=list(OUTPUTS),
        )  # fmt: skip
    assert program is not None
    model: ir.Model = program.model
    found = model.opset_imports.get("")
    if found != opset:
        raise ExportError(f"export.opset: asked for {opset}, but the exporter wrote {found}")
    return model


class InOrder(nn.Module):
    """Takes the ensemble's inputs in their order: before torch 2.13 shapes of named ones cannot be told."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble, self.names = ensemble, list(ensemble.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.ensemble(**dict(zip(self.names, inputs, strict=True)))
        return found


def example_input(given: Input) -> Tensor:
    """Make an input of the sizes that the graph is traced at."""
    shape = [axis if isinstance(axis, int) else TRACED[axis] for axis in given.axes]
    return torch.full(shape, given.traced, dtype=getattr(torch, given.dtype))


def count_nodes(model: ir.Model) -> int:
    """Count the nodes, those inside of others too."""
    return sum(1 for _ in model.graph.all_nodes())


def share(model: ir.Model) -> None:
    """Keep equal weights once, and what is computed from equal things once, as frozen layers of several members are."""
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if not array.flags.c_contiguous:  # of which the next pass takes no digest
            value.const_value = ir.Tensor(np.ascontiguousarray(array), name=value.name)
    for each in (
        passes.DeduplicateHashedInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        each(model)


def save(model: ir.Model, path: Path, about: Mapping[str, str]) -> None:
    """Write a graph and its weights beside it, without what the exporter notes of this machine, and check it."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    made = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in chain(model.graph.inputs, model.graph.initializers.values(), made):  # the pass takes no notice of them
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update(about)
    model.producer_name, model.producer_version = "fuseline", about.get("fuseline", "")
    ir.save(model, path, external_data=f"{path.name}.data")
    tidy(path)


def tidy(path: Path) -> None:
    """Bring the bytes of a graph's file in one order, and check it strictly.

    Raises:
        ExportError: the checker refuses it.
    """
    model = onnx.load(path, load_external_data=False)
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: refused by ONNX's checker: {error}") from error
