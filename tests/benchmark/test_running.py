"""A graph that is bound says what it says unbound, wherever it is bound to; its options are those of params."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.running import Bound, Plain, open_timer, provider_options
from fuseline.errors import BundleError
from fuseline.runtime.predictor import Feeds, Predictor, Row
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
    assert bound.spent.graph_ms > 0
    assert bound.spent.copy_ms > 0


def test_a_call_s_graph_and_copies_are_timed_apart_from_the_rest(bundle: Path, rows: list[Row]) -> None:
    side = Candidate.open(bundle, CONDITIONS, rows[0])
    side.timer = Bound(side.predictor.session, "cpu")
    call = side.call(rows[:1])
    assert call.copy_ms > 0
    assert 0 < call.graph_ms < call.whole_ms
    assert call.copy_ms + call.graph_ms < call.whole_ms


def test_a_call_that_sets_up_memory_for_new_shapes_is_made_once_more(bundle: Path, rows: list[Row]) -> None:
    side = Candidate.open(bundle, CONDITIONS, rows[0])
    asked: list[bool] = []

    class Noted(Bound):
        def __call__(self, feeds: Feeds) -> Any:
            outputs = super().__call__(feeds)
            asked.append(self.spent.set_up)
            return outputs

    side.timer = Noted(side.predictor.session, "cpu")
    for _ in range(2):
        side.call(rows[:1])
    side.call(rows[2:3])
    assert asked == [True, False, False, True, False]


def test_memory_is_kept_for_so_many_shapes_and_no_more(
    predictor: Predictor, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuseline.benchmark.running.PLACES", 2)
    bound, graphs = Bound(predictor.session, "cpu"), Bound(predictor.session, "cpu", graph=True)
    expected = list(predictor.answer(rows))
    found = [next(predictor.answer([row], 1, bound)) for row in rows]
    np.testing.assert_allclose([one.logits for one in found], [one.logits for one in expected], atol=1e-5)
    assert len(bound._places) == 2
    with pytest.raises(BundleError, match="more than 2 sets of shapes"):
        list(predictor.answer(rows, 1, graphs))


def test_on_a_gpu_the_graph_is_bound_where_params_say_so(predictor: Predictor) -> None:
    def opened(on_gpu: bool, **changes: bool) -> Any:
        return open_timer(predictor.session, CONDITIONS.cuda.model_copy(update=changes), on_gpu)

    assert isinstance(opened(False), Plain)
    assert isinstance(opened(True, io_binding=False), Plain)
    assert [opened(False).on_gpu, opened(True, io_binding=False).on_gpu, opened(True).on_gpu] == [False, True, True]
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
