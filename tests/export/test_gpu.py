"""On a GPU every combination answers as torch does on the processor, in each variant made for GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fuseline.models.ensemble import Ensemble
from fuseline.records import Variant
from fuseline.runtime.session import can_work, open_session, providers_used
from tests.export.test_combinations import OUTPUTS, SHAPES, as_variant, draw, expect, exported

__all__ = ["exported"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not can_work("CUDAExecutionProvider"), reason="needs an NVIDIA GPU and onnxruntime-gpu"),
]
EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}


@pytest.mark.parametrize(("variant", "off"), [("fp32", 1e-5), ("fused", 1e-5), ("fp16", 1e-2)])
def test_the_graph_answers_as_torch(
    variant: Variant, off: float, exported: tuple[Ensemble, Path], tmp_path: Path
) -> None:
    ensemble, folder = exported
    model = as_variant(variant, folder / "model.onnx", tmp_path)
    session = open_session(model, ["CUDAExecutionProvider", "CPUExecutionProvider"], options=EXACT)
    assert providers_used(session)[0] == "CUDAExecutionProvider"
    for seed, shape in enumerate(SHAPES):
        feeds = draw(ensemble.inputs, seed, **shape)
        found, expected = session.run(list(OUTPUTS), feeds), expect(ensemble, feeds)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=off * max(1.0, np.abs(other).max()), rtol=0)
        if variant != "fp16":
            np.testing.assert_array_equal(found[0].argmax(-1), expected[0].argmax(-1))
