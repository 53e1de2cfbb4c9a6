"""A graph that is bound says what it says unbound, wherever it is bound to; its options are those of params."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.running import Bound, Plain, open_timer, provider_options
from fuseline.runtime.predictor import Predictor, Row
from tests.benchmark.test_measure import CONDITIONS

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, CPU, 1)


@pytest.mark.parametrize("pinned", [False, True])
def test_bound_inputs_of_any_shapes_give_the_same_answers(pinned: bool, predictor: Predictor, rows: list[Row]) -> None:
    locked: list[int] = []
    bound = Bound(
        predictor.session, "cpu", graph=True, pin=(lambda array: locked.append(array.nbytes)) if pinned else None
    )
    for _ in range(2):  # the second time in the same places, which hold what was there before
        for row, answer in zip(rows, predictor.answer(rows), strict=True):
            (found,) = predictor.answer([row], 1, bound)
            np.testing.assert_allclose(found.probabilities, answer.probabilities, atol=1e-6)
    assert (len(locked) > 0) is pinned
    assert bound.graph_ms > 0
    assert bound.copy_ms > 0


def test_a_call_s_graph_and_copies_are_timed_apart_from_the_rest(bundle: Path, rows: list[Row]) -> None:
    side = Candidate.open(bundle, CONDITIONS, rows[0])
    side.timer = Bound(side.predictor.session, "cpu")
    for _ in range(2):
        call = side.call(rows[:1])
    assert call.copy_ms > 0
    assert 0 < call.graph_ms < call.whole_ms
    assert call.copy_ms + call.graph_ms < call.whole_ms


def test_on_a_gpu_the_graph_is_bound_where_params_say_so(predictor: Predictor) -> None:
    def opened(on_gpu: bool, **changes: bool) -> Any:
        return open_timer(predictor.session, CONDITIONS.cuda.model_copy(update=changes), on_gpu)

    assert isinstance(opened(False), Plain)
    assert isinstance(opened(True, io_binding=False), Plain)
    assert isinstance(opened(True), Bound)
    assert opened(True)._pin is not None
    assert opened(True, pinned=False)._pin is None
    assert opened(True, graph=True)._graph is True
    assert opened(True, graph=False)._graph is False


def test_options_are_said_in_onnxruntime_s_words() -> None:
    asked = CONDITIONS.cuda.model_copy(update={"graph": True, "tf32": True})
    found = provider_options(asked)
    assert found["CUDAExecutionProvider"] == {"enable_cuda_graph": "1", "use_tf32": "1"}
    assert found["TensorrtExecutionProvider"] == {"trt_cuda_graph_enable": "1"}
