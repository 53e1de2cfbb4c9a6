"""What stands for torch in a comparison says what the graph says."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from fuseline.benchmark.measure import measure
from fuseline.benchmark.peers import _halve, _on_cpu, open_peers
from fuseline.benchmark.running import Timer
from fuseline.models.ensemble import Ensemble
from fuseline.models.preprocess import Preprocess
from fuseline.models.spectrogram import LogMel
from fuseline.runtime.predictor import Predictor, Row
from tests.benchmark.test_measure import CONDITIONS, STREAM_ONLY


@pytest.mark.slow
def test_torch_in_every_way_answers_as_the_graph_does(ensemble: Ensemble, bundle: Path, rows: list[Row]) -> None:
    peers = open_peers(ensemble, CONDITIONS, on_gpu=False)
    kinds = ("eager", "channels_last", "compile")
    assert list(peers) == [f"torch {kind}{half}" for half in ("", " bfloat16") for kind in kinds]
    predictor = Predictor(bundle, ["CPUExecutionProvider"], 1)
    expected = [answer.probabilities for answer in predictor.answer(rows[:1])]
    del peers["torch compile bfloat16"]  # a minute more of compiling, and nothing else that is new
    for name, timer in peers.items():
        found = [answer.probabilities for answer in predictor.answer(rows[:1], run=timer)]
        np.testing.assert_allclose(found, expected, atol=0.03 if "bfloat16" in name else 1e-5, err_msg=name)


def test_torch_takes_turns_with_the_graph(ensemble: Ensemble, bundle: Path, rows: list[Row]) -> None:
    def eager(on_gpu: bool) -> dict[str, Timer]:
        return {
            name: timer for name, timer in open_peers(ensemble, CONDITIONS, on_gpu).items() if name == "torch eager"
        }

    found = measure(bundle, rows, STREAM_ONLY, open_peers=eager)
    assert found.others["torch eager"].graph_faster.keys() == {"batch_1", "batch_3"}
    assert found.versions["torch"] == torch.__version__


def test_a_model_in_half_precision_is_given_it_wherever_it_has_weights(
    ensemble: Ensemble, bundle: Path, rows: list[Row]
) -> None:
    predictor = Predictor(bundle, ["CPUExecutionProvider"], 1)
    expected = [answer.probabilities for answer in predictor.answer(rows[:1])]
    halved = _halve(ensemble)
    given: list[torch.dtype] = []
    for module in halved.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].dtype))
    found = [one.probabilities for one in predictor.answer(rows[:1], run=_on_cpu(halved, nullcontext))]
    assert set(given) == {torch.float16}
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert next(ensemble.parameters()).dtype == torch.float32


def test_what_prepares_pictures_and_recordings_stays_in_single_precision() -> None:
    sound = torch.nn.Sequential(LogMel(8000, 16, 200, 80, 0.0, 0.0, False, 1e-10), torch.nn.Conv1d(16, 4, 1))
    picture = torch.nn.Sequential(Preprocess(32, [0.5] * 3, [0.25] * 3), torch.nn.Conv2d(3, 4, 3))
    quiet = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)) * 1e-3
    large = torch.randint(0, 256, (1, 3000, 20, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for model, given in ((sound, quiet), (picture, large)):
        with torch.no_grad():
            found, expected = _halve(model)(given), model(given)
        assert found.dtype == torch.float16
        np.testing.assert_allclose(found.float(), expected, atol=0.02)
