"""On a GPU a bundle answers as it does on the processor, however it is run, and the record says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.measure import measure
from fuseline.benchmark.peers import open_peers
from fuseline.models.ensemble import Ensemble
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.session import can_work
from tests.benchmark.test_measure import CONDITIONS, CUDA

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not can_work("CUDAExecutionProvider"), reason="needs an NVIDIA GPU and onnxruntime-gpu"),
]


@pytest.mark.parametrize("changes", [{}, {"pinned": False}, {"graph": True}, {"io_binding": False, "pinned": False}])
def test_however_it_is_run_it_answers_the_same(changes: dict[str, bool], bundle: Path, rows: list[Row]) -> None:
    conditions = CONDITIONS.model_copy(update={"cuda": CONDITIONS.cuda.model_copy(update=changes)})
    side = Candidate.open(bundle, conditions, rows[0])
    expected = [one.logits for one in Predictor(bundle, ["CPUExecutionProvider"], 1).answer(rows)]
    for _ in range(2):  # the second time a CUDA graph is replayed
        found = [one.logits for one in side.predictor.answer(rows, 1, side.timer)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert side.timer.on_gpu


def test_the_record_says_that_it_was_a_gpu_and_torch_was_on_it_too(
    bundle: Path, rows: list[Row], ensemble: Ensemble
) -> None:
    def peers(on_gpu: bool) -> Any:
        assert on_gpu
        return {
            name: timer for name, timer in open_peers(ensemble, CONDITIONS, on_gpu).items() if "compile" not in name
        }

    found = measure(bundle, rows, CONDITIONS, open_peers=peers)
    assert found.device.startswith("GPU: ")
    assert found.gpu is not None
    assert found.providers_used[0] == "CUDAExecutionProvider"
    assert "CUDAExecutionProvider" not in found.missing
    assert found.cuda == CUDA
    assert found.batches["batch_1"].copy_p50_ms > 0
    assert found.versions.keys() >= {"driver", "torch"}
    assert "gpu now" in found.clocks_mhz
    for name, rival in found.others.items():
        assert rival.gpu == found.gpu, name
        assert rival.graph_faster.keys() == found.batches.keys(), name
    assert {"torch eager half", "torch channels_last half"} <= found.others.keys()
