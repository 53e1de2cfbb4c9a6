"""Write the ensemble as one ONNX graph.

Shape letters: B batch, S tokens, H height, W width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from fuseline.errors import ExportError
from fuseline.models.ensemble import Ensemble

INPUTS = {"text": ("input_ids", "attention_mask", "has_text"), "image": ("pixels", "has_image")}
OUTPUTS = ("probabilities", "logits", "members")
AXES = {
    "input_ids": {0: "batch", 1: "tokens"},
    "attention_mask": {0: "batch", 1: "tokens"},
    "has_text": {0: "batch"},
    "pixels": {0: "batch", 1: "height", 2: "width"},
    "has_image": {0: "batch"},
}


class Served(nn.Module):
    """The ensemble as callers see it: only the inputs of the modalities that it uses."""

    def __init__(self, ensemble: Ensemble, modalities: Sequence[str]) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.modalities = tuple(modalities)

    def forward(self, **given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run."""
        outputs: tuple[Tensor, Tensor, Tensor] = self.ensemble(**with_absent(given))
        return outputs


def with_absent(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the inputs of modalities that no member uses: absent in every row."""
    flag_B = next(flag for name, flag in given.items() if name.startswith("has_"))
    batch = flag_B.shape[0]
    return {
        "input_ids": torch.zeros(batch, 1, dtype=torch.long),
        "attention_mask": torch.ones(batch, 1, dtype=torch.long),
        "has_text": torch.zeros_like(flag_B),
        "pixels": torch.zeros(batch, 1, 1, 3, dtype=torch.uint8),
        "has_image": torch.zeros_like(flag_B),
    } | given


def write_graph(ensemble: Ensemble, modalities: Sequence[str], opset: int, path: Path) -> None:
    """Export with dynamic batch, tokens, height and width to `path` and `path`.data.

    Raises:
        ExportError: the exporter or the checker refused, or gave another opset than asked for.
    """
    example = example_inputs(modalities)
    shapes = {name: dict(AXES[name]) for name in example}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            Served(ensemble.eval(), modalities), (), kwargs=example, dynamo=True, verbose=False, opset_version=opset,
            dynamic_shapes={"given": shapes}, input_names=list(example), output_names=list(OUTPUTS),
        )  # fmt: skip
    assert program is not None
    model = program.model
    found = model.opset_imports.get("")
    if found != opset:
        raise ExportError(f"export.opset: asked for {opset}, but the exporter wrote {found}")
    program.save(str(path), external_data=True)
    _clean(path)


def example_inputs(modalities: Sequence[str]) -> dict[str, Tensor]:
    """Make inputs of the sizes that the graph is traced at: no axis has size 0 or 1, which would be fixed."""
    inputs = {
        "input_ids": torch.ones(2, 7, dtype=torch.long),
        "attention_mask": torch.ones(2, 7, dtype=torch.long),
        "has_text": torch.ones(2, dtype=torch.bool),
        "pixels": torch.zeros(2, 48, 40, 3, dtype=torch.uint8),
        "has_image": torch.ones(2, dtype=torch.bool),
    }
    return {name: inputs[name] for modality in modalities for name in INPUTS[modality]}


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
