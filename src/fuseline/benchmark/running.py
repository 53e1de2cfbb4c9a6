"""Run a graph and tell its own time, with the copies to and from the device apart where inputs and outputs are bound.

A session's plain `run` copies within; bound to a device the graph finds its inputs there, and a CUDA graph, which is
captured once for each set of shapes, finds them where they were when it was captured.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class Timer(Protocol):
    """Answers a graph's inputs, and adds up how long that took since it was last set to 0."""

    graph_ms: float
    copy_ms: float | None

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""


class Plain:
    """Runs a graph, or what stands in for one, as it is served."""

    def __init__(self, run: Callable[[Feeds], Sequence[Floats]]) -> None:
        self._run = run
        self.graph_ms = 0.0
        self.copy_ms: float | None = None

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""
        start = time.perf_counter()
        outputs = self._run(feeds)
        self.graph_ms += (time.perf_counter() - start) * 1000
        return outputs


class Bound:
    """Runs a graph with its inputs and outputs bound to a device, by shapes.

    Args:
        device: `cpu` or `cuda`.
        graph: whether each set of shapes has a CUDA graph of its own.
        pin: locks a buffer's pages, so that the device reads it directly; None leaves them.
    """

    def __init__(self, session: ort.InferenceSession, device: str, graph: bool = False, pin: Pin | None = None) -> None:
        self._session, self._device, self._graph, self._pin = session, device, graph, pin
        self._places: dict[tuple[Any, ...], _Place] = {}
        self.graph_ms = 0.0
        self.copy_ms: float | None = 0.0

    def __call__(self, feeds: Feeds) -> Sequence[Floats]:
        """Map the graph's inputs to its outputs."""
        place = self._place(feeds)
        with _timed() as copied:
            place.fill(feeds)
        with _timed() as ran:
            self._session.run_with_iobinding(place.binding, place.options)
            place.binding.synchronize_outputs()
        with _timed() as fetched:
            outputs: Sequence[Floats] = place.binding.copy_outputs_to_cpu()
        self.graph_ms += ran[0]
        self.copy_ms = (self.copy_ms or 0.0) + copied[0] + fetched[0]
        return outputs

    def _place(self, feeds: Feeds) -> _Place:
        shapes = tuple(array.shape for array in feeds.values())
        if shapes not in self._places:
            number = len(self._places) if self._graph else None
            self._places[shapes] = _Place(self._session, feeds, self._device, number, self._pin)
        return self._places[shapes]


class _Place:
    """Where inputs and outputs of one set of shapes lie; a CUDA graph asks that they stay there."""

    def __init__(
        self, session: ort.InferenceSession, feeds: Feeds, device: str, number: int | None, pin: Pin | None
    ) -> None:
        self.binding, self.options = session.io_binding(), _name_graph(number)
        self._staged = {name: array.copy() for name, array in feeds.items()} if pin else {}
        for array in self._staged.values():
            assert pin is not None
            pin(array)
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array.copy(), device) for name, array in feeds.items()}
        for name, value in self._values.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, array in zip(OUTPUTS, session.run(OUTPUTS, feeds, _name_graph(-1)), strict=True):
            self.binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array, device))

    def fill(self, feeds: Feeds) -> None:
        for name, array in feeds.items():
            if name in self._staged:
                np.copyto(self._staged[name], array)
            self._values[name].update_inplace(self._staged.get(name, array))
        self.binding.synchronize_inputs()


def _name_graph(number: int | None) -> ort.RunOptions:
    """Say which CUDA graph a run captures or replays; -1 is none."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(-1 if number is None else number))
    return options


@contextmanager
def _timed() -> Iterator[list[float]]:
    found: list[float] = []
    start = time.perf_counter()
    yield found
    found.append((time.perf_counter() - start) * 1000)


def open_timer(session: ort.InferenceSession, settings: Cuda, on_gpu: bool) -> Timer:
    """Choose how a bundle's graph is run: bound to the GPU if it is on one and params ask for that."""
    if not (on_gpu and settings.io_binding):
        return Plain(lambda feeds: session.run(OUTPUTS, feeds))
    return Bound(session, "cuda", settings.graph, lock_pages if settings.pinned else None)


def provider_options(settings: Cuda) -> dict[str, dict[str, str]]:
    """Say it in onnxruntime's words, by provider."""
    graph, tf32 = str(int(settings.graph)), str(int(settings.tf32))
    return {
        CUDA: {"enable_cuda_graph": graph, "use_tf32": tf32},
        TENSORRT: {"trt_cuda_graph_enable": graph},
    }


def lock_pages(array: NDArray[Any]) -> None:
    """Lock a buffer's pages for the CUDA device, as long as the process lives."""
    status = ctypes.CDLL(CUDART).cudaHostRegister(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), 0)
    if status:
        raise BundleError(
            f"CUDA could not lock {array.nbytes:,} bytes (error {status}); set benchmark.cuda.pinned: false"
        )
