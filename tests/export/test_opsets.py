"""Graphs of the oldest and of the newest opset that params.yaml may ask for, in every variant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from fuseline.config.serving import OPSETS
from fuseline.export.graph import OUTPUTS, write_graph
from fuseline.export.variants import write_variant
from fuseline.models.ensemble import Ensemble
from tests.conftest import combiner_of
from tests.export.test_combinations import CPU, SHAPES, build, draw, expect

ABOUT = {"name": "tiny", "variant": "any"}
WRITTEN = {"fp32": 1e-5, "fused": 1e-5, "fp16": 5e-3, "int8": 0.3}
"""Variants, and how far a probability may be off."""


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """Give three members with all kinds of encoders: BERT, ResNet, log-mels; and so on."""
    whole = build("row", 0)
    kept = {name: member for name, member in zip(whole.names, whole.members, strict=True) if name in KEPT}
    return Ensemble(kept, combiner_of([1 / 3] * 3, 0.8)).eval()  # type: ignore[arg-type]


KEPT = ("concat", "cross-attention", "mixture-of-experts")


@pytest.fixture(scope="module", params=[OPSETS[0], OPSETS[-1]], ids=lambda opset: f"opset {opset}")
def written(request: pytest.FixtureRequest, ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give the opset, and by variant the folder of its graph."""
    folder = tmp_path_factory.mktemp("opset")
    paths = {variant: folder / variant / "model.onnx" for variant in WRITTEN}
    for path in paths.values():
        path.parent.mkdir()
    write_graph(ensemble, request.param, paths["fp32"], ABOUT)
    for variant in ("fused", "fp16", "int8"):
        rows = [draw(ensemble.inputs, 50 + seed, **SHAPES[4]) for seed in range(4)]
        assert write_variant(variant, paths["fp32"], paths[variant], ABOUT, lambda rows=rows: iter(rows))  # type: ignore[arg-type, misc]
    return request.param, paths


@pytest.mark.parametrize("variant", WRITTEN)
def test_the_graph_answers_as_torch_as(variant: str, written: Any, ensemble: Ensemble) -> None:
    session = ort.InferenceSession(str(written[1][variant]), providers=CPU)
    for seed, shape in enumerate(SHAPES[:4]):
        feeds = draw(ensemble.inputs, seed, **shape)
        probs, expected = session.run(["probabilities"], feeds)[0], expect(ensemble, feeds)[0]
        assert np.abs(probs - expected).max() < WRITTEN[variant]


@pytest.mark.parametrize("variant", WRITTEN)
def test_the_file_says_what_it_is_and_has_its_weights_beside_it(variant: str, written: Any, ensemble: Ensemble) -> None:
    opset, paths = written
    model = onnx.load(paths[variant], load_external_data=False)
    onnx.checker.check_model(str(paths[variant]), full_check=True)
    assert {one.domain: one.version for one in model.opset_import}[""] == opset
    assert {one.key: one.value for one in model.metadata_props} == ABOUT
    assert [one.name for one in model.graph.input] == list(ensemble.inputs)
    assert [one.name for one in model.graph.output] == list(OUTPUTS)
    named = {one.value for each in model.graph.initializer for one in each.external_data if one.key == "location"}
    assert named == {"model.onnx.data"}
    assert {path.name for path in paths[variant].parent.iterdir()} == {"model.onnx", "model.onnx.data"}
