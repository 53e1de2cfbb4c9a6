"""What is timed, under which conditions, and that each key of them counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fuseline.benchmark.loops import deal_arrivals
from fuseline.benchmark.measure import key_of, measure
from fuseline.benchmark.running import Bound, Plain, Timer
from fuseline.config import Benchmark as Conditions
from fuseline.errors import BundleError
from fuseline.records import Benchmark
from fuseline.runtime.predictor import Answer, Feeds, Predictor, Row
from fuseline.runtime.session import gpu_name

CUDA = {"io_binding": True, "pinned": True, "graph": False, "tf32": False}
CONDITIONS = Conditions.model_validate({
    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "rows": 8, "batch_sizes": [1, 3], "threads": 1,
    "warmup": 1, "calls": 5, "offline": {"rows": 7, "calls": 3},
    "server": {"rates": [200.0], "rows": 9, "largest_batch": 2}, "roofline": 2, "confidence": 0.9, "seed": 0,
    "cuda": CUDA,
})  # fmt: skip
STREAM_ONLY = CONDITIONS.model_copy(update={"offline": None, "server": None, "roofline": None})


@pytest.fixture(scope="module")
def measured(bundle: Path, rows: list[Row]) -> Benchmark:
    itself = Plain(Predictor(bundle, ["CPUExecutionProvider"], 1)._run)
    return measure(bundle, rows, CONDITIONS, {"twin": bundle}, lambda on_gpu: {"itself": itself})


class Watched(Predictor):
    """Notes what it is asked."""

    opened: list[Watched]

    def __init__(self, folder: Path, *settings: Any) -> None:
        super().__init__(folder, *settings)
        self.calls: list[int] = []
        self.rows: list[Row] = []
        self.settings = settings
        self.opened.append(self)

    def answer(self, rows: Iterable[Row], batch_size: int = 32, run: Any = None) -> Iterator[Answer]:
        rows = list(rows)
        self.calls.append(len(rows))
        self.rows += rows
        assert batch_size == len(rows)
        return super().answer(rows, batch_size, run)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Let `measure` open watched predictors; give those it opened."""
    found: list[Watched] = []
    monkeypatch.setattr(Watched, "opened", found, raising=False)
    monkeypatch.setattr("fuseline.benchmark.candidate.Predictor", Watched)
    return found


def calls(opened: list[Watched], bundle: Path, rows: list[Row], **changes: Any) -> list[int]:
    """Run a benchmark under changed conditions; return how many rows each of its calls was of."""
    opened.clear()
    measure(bundle, rows, STREAM_ONLY.model_copy(update=changes))
    (only,) = opened
    return only.calls


def test_each_batch_size_is_timed_without_the_warmup(measured: Benchmark) -> None:
    assert {name: (one.batch_size, one.calls) for name, one in measured.batches.items()} == {
        "batch_1": (1, 5), "batch_3": (3, 5),
    }  # fmt: skip
    for latency in measured.batches.values():
        assert 0 < latency.p50_ms <= latency.p95_ms
        assert latency.p99_ms is None
        assert 0 < latency.graph_p50_ms < latency.p50_ms
        assert latency.copy_p50_ms is None
        assert latency.cpu_p50_ms > 0


def test_the_first_answer_and_the_warmup_come_before_what_is_counted(
    opened: list[Watched], bundle: Path, rows: list[Row]
) -> None:
    assert calls(opened, bundle, rows) == [1] + [1] * 6 + [3] * 6
    assert calls(opened, bundle, rows, warmup=3) == [1] + [1] * 8 + [3] * 8
    assert calls(opened, bundle, rows, calls=2, batch_sizes=[2]) == [1] + [2] * 3


def test_the_calls_go_round_in_as_many_rows_as_asked_for(opened: list[Watched], bundle: Path, rows: list[Row]) -> None:
    def asked(count: int) -> tuple[int, set[int]]:
        opened.clear()
        found = measure(bundle, iter(rows), STREAM_ONLY.model_copy(update={"rows": count, "batch_sizes": [1]}))
        return found.rows, {rows.index(row) for row in opened[0].rows}

    assert asked(2) == (2, {0, 1})
    assert asked(100) == (8, {0, 1, 2, 3, 4, 5})  # six calls


def test_without_a_row_there_is_nothing_to_time(bundle: Path) -> None:
    with pytest.raises(BundleError, match="there is no row to ask it with"):
        measure(bundle, [], CONDITIONS)


def test_the_session_that_is_timed_has_the_threads_asked_for(
    opened: list[Watched], bundle: Path, rows: list[Row]
) -> None:
    calls(opened, bundle, rows, threads=3)
    assert [one.session.get_session_options().intra_op_num_threads for one in opened] == [3]


def test_the_session_that_is_timed_has_the_providers_asked_for(bundle: Path, rows: list[Row]) -> None:
    with pytest.raises(BundleError, match="none of NoSuchExecutionProvider can work here"):
        measure(bundle, rows, CONDITIONS.model_copy(update={"providers": ["NoSuchExecutionProvider"]}))


@pytest.mark.parametrize("key", ["graph", "tf32"])
def test_the_session_that_is_timed_has_cuda_options(
    key: str, opened: list[Watched], bundle: Path, rows: list[Row]
) -> None:
    def options(value: bool) -> Mapping[str, Mapping[str, str]]:
        calls(opened, bundle, rows, cuda=CONDITIONS.cuda.model_copy(update={key: value}))
        found: Mapping[str, Mapping[str, str]] = opened[0].settings[2]
        return found

    assert options(True)["CUDAExecutionProvider"] != options(False)["CUDAExecutionProvider"]


def test_offline_all_rows_are_there_at_once(
    opened: list[Watched], bundle: Path, rows: list[Row], measured: Benchmark
) -> None:
    offline = CONDITIONS.offline.model_copy(update={"rows": 11, "calls": 2})
    assert calls(opened, bundle, rows, offline=offline)[13:] == [11] * 3  # one to warm up
    assert (measured.offline.rows, measured.offline.calls) == (7, 3)
    assert measured.offline.examples_per_second > 0


def test_rows_arrive_at_each_rate_and_wait_for_each_other(opened: list[Watched], bundle: Path, rows: list[Row]) -> None:
    server = CONDITIONS.server.model_copy(update={"rates": [1e6], "rows": 10, "largest_batch": 4})
    assert calls(opened, bundle, rows, server=server)[13:] in ([4, 4, 2], [1, 4, 4, 1], [2, 4, 4], [3, 4, 3])
    two = server.model_copy(update={"rates": [1e6, 2e6], "largest_batch": 1})
    assert calls(opened, bundle, rows, server=two)[13:] == [1] * 20


def test_a_rate_is_named_without_a_dot_so_that_a_gate_can_ask_for_it() -> None:
    assert [key_of(rate) for rate in (20.0, 0.5, 12.25)] == ["rate_20", "rate_0_5", "rate_12_25"]


def test_the_latency_of_arriving_rows_is_summed_up_by_rate(measured: Benchmark) -> None:
    (load,) = measured.server.values()
    assert (list(measured.server), load.rate, load.rows, load.largest_batch) == (["rate_200"], 200.0, 9, 2)
    assert 1 <= load.mean_batch <= 2
    assert 0 < load.p50_ms <= load.p95_ms


def test_what_stands_beside_it_takes_turns_on_the_same_rows(measured: Benchmark) -> None:
    assert list(measured.others) == ["twin", "itself"]
    for other in measured.others.values():
        assert other.batches.keys() == other.faster.keys() == other.graph_faster.keys() == measured.batches.keys()
        assert other.model_bytes == (None if other is measured.others["itself"] else measured.model_bytes)
        assert 0.1 < other.faster["batch_1"].value < 10
        assert other.server.keys() == measured.server.keys()


def test_rows_that_arrive_are_answered_once_whatever_that_takes(bundle: Path, rows: list[Row]) -> None:
    asked: list[int] = []

    class Noted(Bound):
        def __call__(self, feeds: Feeds) -> Any:
            asked.append(len(feeds["has_text"]))
            return super().__call__(feeds)

    def peers(on_gpu: bool) -> dict[str, Timer]:
        return {"bound": Noted(Predictor(bundle, ["CPUExecutionProvider"], 1).session, "cpu")}

    server = CONDITIONS.server.model_copy(update={"rates": [1e6], "rows": 8, "largest_batch": 4})
    measure(bundle, rows[:1], STREAM_ONLY.model_copy(update={"server": server, "batch_sizes": [2]}), open_peers=peers)
    assert asked[:8] == [1] + 7 * [2]  # the first answer; of six calls, the first is made once more
    assert sum(asked[8:]) == 8


def test_each_side_says_what_ran_it(measured: Benchmark) -> None:
    twin, itself = measured.others["twin"], measured.others["itself"]
    assert (twin.device, twin.gpu, twin.nodes) == (measured.device, measured.gpu, measured.nodes)
    assert twin.missing == measured.missing
    assert (itself.device, itself.providers_used, itself.missing) == (measured.device, [], {})


def test_graphs_are_not_compared_where_one_side_alone_has_its_copies_apart(bundle: Path, rows: list[Row]) -> None:
    def peers(on_gpu: bool) -> dict[str, Timer]:
        assert not on_gpu
        return {"bound": Bound(Predictor(bundle, ["CPUExecutionProvider"], 1).session, "cpu")}

    found = measure(bundle, rows, STREAM_ONLY, open_peers=peers).others["bound"]
    assert found.batches["batch_1"].copy_p50_ms > 0
    assert found.faster.keys() == {"batch_1", "batch_3"}
    assert found.graph_faster == {}


def test_the_seed_deals_turns_and_arrivals(bundle: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    dealt: list[list[float]] = []

    def watch(rate: float, count: int, seed: int) -> list[float]:
        dealt.append(deal_arrivals(rate, count, seed))
        return dealt[-1]

    monkeypatch.setattr("fuseline.benchmark.measure.deal_arrivals", watch)
    for seed in (0, 0, 1):
        measure(bundle, rows, CONDITIONS.model_copy(update={"seed": seed, "roofline": None, "offline": None}))
    assert dealt[0] == dealt[1] != dealt[2]


def test_intervals_have_the_confidence_asked_for(bundle: Path, rows: list[Row]) -> None:
    def width(confidence: float) -> bool:
        changed = STREAM_ONLY.model_copy(update={"confidence": confidence, "batch_sizes": [1], "calls": 6})
        found = measure(bundle, rows, changed)
        assert found.confidence == confidence
        return found.batches["batch_1"].intervals["p50"].low is not None

    assert width(0.9)
    assert not width(0.99)  # of six calls two thirds of a percent too few


def test_the_conditions_stand_beside_the_numbers(measured: Benchmark, bundle: Path) -> None:
    graph = sum((bundle / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    assert measured.model_bytes == graph
    assert measured.threads == 1
    assert measured.providers_asked == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert measured.load_ms > 0
    assert measured.first_answer_ms > 0
    assert measured.peak_memory_bytes > graph
    assert measured.cpu
    assert measured.cores >= 1
    assert measured.versions.keys() >= {"python", "numpy", "onnxruntime"}
    assert measured.contention.seconds > 0
    assert measured.valid is (measured.invalid_because == "")


def test_roofline_is_left_out_where_nobody_asks_for_it(measured: Benchmark, bundle: Path, rows: list[Row]) -> None:
    assert list(measured.roofline) == ["batch_1", "batch_3"]
    assert measured.ceilings["fp32"] > 1e9
    left_out = measure(bundle, rows, STREAM_ONLY)
    assert left_out.roofline == left_out.ceilings == left_out.server == {}
    assert left_out.offline is None


@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU")
def test_without_a_gpu_the_record_says_so_in_plain_words(measured: Benchmark) -> None:
    assert measured.device == "CPU, no GPU found"
    assert measured.gpu is None
    assert measured.providers_used == list(measured.nodes) == ["CPUExecutionProvider"]
    assert measured.missing["CUDAExecutionProvider"].startswith("no NVIDIA driver: libcuda.so.1")
    assert measured.fallen == {}
