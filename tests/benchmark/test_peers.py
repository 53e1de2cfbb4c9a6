"""What stands for torch in a comparison says what the graph says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fuseline.benchmark.measure import measure
from fuseline.benchmark.peers import open_peers
from fuseline.models.ensemble import Ensemble
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
    for name, run in peers.items():
        found = [answer.probabilities for answer in predictor.answer(rows[:1], run=run)]
        np.testing.assert_allclose(found, expected, atol=0.03 if "bfloat16" in name else 1e-5, err_msg=name)


def test_torch_takes_turns_with_the_graph(ensemble: Ensemble, bundle: Path, rows: list[Row]) -> None:
    eager = {name: run for name, run in open_peers(ensemble, CONDITIONS, False).items() if name == "torch eager"}
    found = measure(bundle, rows, STREAM_ONLY, peers=eager)
    assert found.others["torch eager"].graph_faster.keys() == {"batch_1", "batch_3"}
