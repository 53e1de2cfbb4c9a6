"""Run a graph and tell its own time, with the copies to and from the device apart where inputs and outputs are bound.

A session's plain `run` copies within; bound to a device the graph finds its inputs there, and a CUDA graph, which is
captured once for each set of shapes, finds them where they were when it was captured.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fuseline.config import Cuda
from fuseline.errors import BundleError
from fuseline.runtime.predictor import OUTPUTS, Feeds, Floats

Pin = Callable[[NDArray[Any]], None]
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
CUDART = "libcudart.so.13"
Shapes = tuple[tuple[int, ...], ...]
PLACES = 64
"""Sets of shapes that memory is kept for."""
MEETINGS = 3
"""Runs at new shapes that are not timed: torch compiles in the first, warms up in the second, captures in the third."""


@dataclass
class Spent:
    """What went into the answer to a batch, besides decoding and tokenizing."""

    graph_ms: float = 0.0
    copy_ms: float | None = None
    """None where copies are part of the graph's time."""
    set_up: bool = False
    """Whether memory was made ready for new shapes; what took that long is no measure of the next call."""


class Timer(Protocol):
    """Answers a graph's inputs, and adds what that took to `spent`."""

    spent: Spent
    on_gpu: bool

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""


class Plain:
    """Runs a graph, or what stands in for one, as it is served."""

    def __init__(self, run: Callable[[Feeds], Sequence[Floats]], on_gpu: bool = False) -> None:
        self._run, self.on_gpu = run, on_gpu
        self.spent = Spent()

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""
        with stopwatch() as ran:
            outputs = self._run(feeds)
        self.spent.graph_ms += ran[0]
        return outputs


class Apart:
    """Runs something on a GPU, with its copies timed apart.

    Shapes that are new are run a few times first: memory is made ready, graphs are captured, code is compiled.

    Args:
        copy_in: brings inputs there, and waits until they are.
        run: gives the outputs there, and waits until they are.
        copy_out: brings them back.
    """

    on_gpu = True

    def __init__(
        self,
        copy_in: Callable[[Feeds], Any],
        run: Callable[[Any], Any],
        copy_out: Callable[[Any], Sequence[Floats]],
    ) -> None:
        self._copy_in, self._run, self._copy_out = copy_in, run, copy_out
        self._met = set[Shapes]()
        self.spent = Spent()

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""
        if shapes_of(feeds) not in self._met:
            self._meet(feeds)
            self.spent.set_up = True
        with stopwatch() as copied:
            given = self._copy_in(feeds)
        with stopwatch() as ran:
            made = self._run(given)
        with stopwatch() as fetched:
            outputs = self._copy_out(made)
        self.spent.graph_ms += ran[0]
        self.spent.copy_ms = (self.spent.copy_ms or 0.0) + copied[0] + fetched[0]
        return outputs

    def _meet(self, feeds: Feeds) -> None:
        for _ in range(MEETINGS):
            self._copy_out(self._run(self._copy_in(feeds)))
        self._met.add(shapes_of(feeds))


class Bound(Apart):
    """Runs a graph with its inputs and outputs bound to a device, by shapes.

    Args:
        device: `cpu` or `cuda`.
        graph: whether each set of shapes has a CUDA graph of its own.
        pin: locks a buffer's pages, so that the device reads it directly; None leaves them.

    Raises:
        BundleError: when called, if there are more sets of shapes than CUDA graphs are kept for.
    """

    def __init__(self, session: ort.InferenceSession, device: str, graph: bool = False, pin: Pin | None = None) -> None:
        super().__init__(self._fill, self._replay, lambda place: place.binding.copy_outputs_to_cpu())
        self._session, self._device, self._graph, self._pin = session, device, graph, pin
        self._places: dict[Shapes, _Place] = {}
        self.on_gpu = device == "cuda"

    def _meet(self, feeds: Feeds) -> None:
        if len(self._places) == PLACES:
            if self._graph:  # onnxruntime keeps what it has captured
                raise BundleError(
                    f"these rows make inputs of more than {PLACES} sets of shapes, and each would have a CUDA graph; "
                    "expected rows that are alike in size: leave the CUDA graphs out, or give fewer"
                )
            oldest = next(iter(self._places))
            del self._places[oldest]
            self._met.discard(oldest)
        number = len(self._places) if self._graph else None
        self._places[shapes_of(feeds)] = _Place(self._session, feeds, self._device, number, self._pin)
        super()._meet(feeds)

    def _fill(self, feeds: Feeds) -> _Place:
        place = self._places[shapes_of(feeds)]
        place.fill(feeds)
        return place

    def _replay(self, place: _Place) -> _Place:
        self._session.run_with_iobinding(place.binding, place.options)
        place.binding.synchronize_outputs()
        return place


def shapes_of(feeds: Feeds) -> Shapes:
    """Return the inputs' shapes."""
    return tuple(array.shape for array in feeds.values())


class _Place:
    """Where inputs and outputs of one set of shapes lie; a CUDA graph asks that they stay there."""

    def __init__(
        self, session: ort.InferenceSession, feeds: Feeds, device: str, number: int | None, pin: Pin | None
    ) -> None:
        self.binding, self.options = session.io_binding(), name_graph(number)
        self._staged = {name: array.copy() for name, array in feeds.items()} if pin else {}
        for array in self._staged.values():
            assert pin is not None
            pin(array)
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array.copy(), device) for name, array in feeds.items()}
        for name, value in self._values.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, array in zip(OUTPUTS, session.run(OUTPUTS, feeds, name_graph(-1)), strict=True):
            self.binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array, device))

    def fill(self, feeds: Feeds) -> None:
        for name, array in feeds.items():
            if name in self._staged:
                np.copyto(self._staged[name], array)
            self._values[name].update_inplace(self._staged.get(name, array))
        self.binding.synchronize_inputs()


def name_graph(number: int | None) -> ort.RunOptions:
    """Say which CUDA graph a run captures or replays; -1 is none."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(-1 if number is None else number))
    return options


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Give a list that holds, after the block, how many milliseconds it took."""
    found: list[float] = []
    start = time.perf_counter()
    yield found
    found.append((time.perf_counter() - start) * 1000)


def run_plainly(session: ort.InferenceSession, on_gpu: bool) -> Plain:
    """Run a bundle's graph as it is served."""
    return Plain(lambda feeds: session.run(OUTPUTS, feeds, name_graph(-1)), on_gpu)


def open_timer(session: ort.InferenceSession, settings: Cuda, on_gpu: bool) -> Timer:
    """Choose how a bundle's graph is run: bound to the GPU if it is on one and params ask for that."""
    if not (on_gpu and settings.io_binding):
        return run_plainly(session, on_gpu)
    return Bound(session, "cuda", settings.graph, lock_pages if settings.pinned else None)


def provider_options(settings: Cuda) -> dict[str, dict[str, str]]:
    """Say it in onnxruntime's words, by provider."""
    graph, tf32 = str(int(settings.graph)), str(int(settings.tf32))
    return {
        CUDA: {"enable_cuda_graph": graph, "use_tf32": tf32},
        TENSORRT: {"trt_cuda_graph_enable": graph},
    }


def lock_pages(array: NDArray[Any]) -> None:
    """Lock a buffer's pages for the CUDA device, as long as the buffer lives."""
    try:
        cudart, start = ctypes.CDLL(CUDART), ctypes.c_void_p(array.ctypes.data)
    except OSError as error:
        raise BundleError(f"pages cannot be locked: {error}; set benchmark.cuda.pinned: false (--no-pinned)") from error
    if status := cudart.cudaHostRegister(start, ctypes.c_size_t(array.nbytes), 0):
        raise BundleError(
            f"CUDA could not lock {array.nbytes:,} bytes (error {status}); set benchmark.cuda.pinned: false"
        )
    weakref.finalize(array, cudart.cudaHostUnregister, start)
