"""What the machine can do, by onnxruntime itself: products of matrices by data type, and copies by size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fuseline.runtime.session import make_settings

SIDES = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices: large enough for all of the device."""
COPIES = {"cpu": (1 << 20, 1 << 24, 1 << 27), "cuda": (1 << 24, 1 << 30)}
"""Bytes that copies read and write together: in caches of their own, in shared ones, and beyond any."""
PRODUCTS = {"fp32": ("MatMul", np.float32), "fp16": ("MatMul", np.float16), "int8": ("MatMulInteger", np.int8)}

Providers = Sequence[tuple[str, Mapping[str, str]]]
"""Names and options, as a session takes them."""


@dataclass(frozen=True)
class Probe:
    """A graph of one node that does nothing but this much work."""

    work: float
    """FLOP, or bytes that are read and written."""
    session: ort.InferenceSession
    binding: ort.IOBinding

    def run(self) -> float:
        """Return what it reaches in one call, in a second."""
        for _ in range(2):  # the first finds what took its turn before in the caches
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            self.binding.synchronize_outputs()
            seconds = time.perf_counter() - start
        return self.work / seconds


def open_probes(dtypes: Sequence[str], device: str, providers: Providers, threads: int) -> dict[str, Probe]:
    """Make a probe for each data type that one is known for, and for each size of copy, `copy_BYTES`."""
    side = SIDES[device]
    probes = {}
    for dtype in sorted(set(dtypes) & set(PRODUCTS)):
        kind, number = PRODUCTS[dtype]
        left = np.ones((side, side), np.uint8 if dtype == "int8" else number)
        probes[dtype] = _open(kind, left, np.ones((side, side), number), 2.0 * side**3, device, providers, threads)
    for size in COPIES[device]:
        array = np.ones(size // 8, np.float32)
        probes[f"copy_{size}"] = _open("Neg", array, None, float(size), device, providers, threads)
    return probes


def _open(
    kind: str, array: NDArray[Any], weights: NDArray[Any] | None, work: float, device: str, providers: Providers,
    threads: int,
) -> Probe:  # fmt: skip
    session = ort.InferenceSession(_write(kind, array, weights), make_settings(threads), providers=list(providers))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(array, device))
    (found,) = session.run(["y"], {"x": array})
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(found, device))
    return Probe(work, session, binding)


def _write(kind: str, array: NDArray[Any], weights: NDArray[Any] | None) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    given = [] if weights is None else [numpy_helper.from_array(weights, "w")]
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    made = TensorProto.INT32 if kind == "MatMulInteger" else dtype
    node = helper.make_node(kind, ["x", *(one.name for one in given)], ["y"])
    x, y = (helper.make_tensor_value_info(*told, array.shape) for told in (("x", dtype), ("y", made)))
    graph = helper.make_graph([node], kind, [x], [y], given)
    written: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return written


def bandwidth_at(moved_bytes: float, ceilings: Mapping[str, float]) -> float:
    """Return the bytes per second that a node of this size could move: those of the next smaller copy, the faster."""
    speeds = {int(name.removeprefix("copy_")): of for name, of in ceilings.items() if name.startswith("copy_")}
    fitting = [size for size in speeds if size <= moved_bytes]
    return speeds[max(fitting, default=min(speeds))]
