"""Which providers can work here, and if not, what is missing; which of them really ran a graph's nodes.

Where an NVIDIA provider cannot work, onnxruntime makes a session on the CPU, and `get_device()` says GPU all the same:
so the driver is asked, the provider's library is loaded, which names what it lacks, and nodes are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort

from fuseline.runtime.session import NVIDIA

DRIVER = "libcuda.so.1"
LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
"""What onnxruntime loads when a provider is first asked for."""
HIDDEN = "CUDA_VISIBLE_DEVICES"


def find_missing(providers: Sequence[str], used: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Say of each provider that was asked for, and ran nothing, why.

    Args:
        used: kinds of nodes by provider, as `session.assigned` counts them.
    """
    idle = [name for name in providers if name not in used]
    first = next(iter(used), "no other")
    return {name: why_not(name) or f"it can work here, but took no node of this graph: {first} did" for name in idle}


def why_not(provider: str) -> str | None:
    """Say why a provider cannot work here, None if it can."""
    if provider not in ort.get_available_providers():
        return f"this onnxruntime is built without it; it has {', '.join(ort.get_available_providers())}"
    if provider not in NVIDIA:
        return None
    return _why_no_device() or _why_no_library(provider)


def _why_no_device() -> str | None:
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"no NVIDIA driver: {error}"
    count = ctypes.c_int()
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status == 0 and count.value:
        return None
    hidden = f", and {HIDDEN} is {os.environ[HIDDEN]!r}" if HIDDEN in os.environ else ""
    return f"the NVIDIA driver shows no device ({f'CUDA error {status}' if status else 'none'}){hidden}"


def _why_no_library(provider: str) -> str | None:
    with contextlib.redirect_stdout(None):  # it prints what it does not find, and goes on
        ort.preload_dlls()  # loads those that came as Python packages
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / LIBRARIES[provider]))
    except OSError as error:
        return f"a library is missing or too old: {error}"
    return None


def find_fallen(used: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the kinds of nodes that the CPU ran though a GPU ran others."""
    if not any(name in NVIDIA for name in used):
        return {}
    apart = Counter[str]()
    for name, kinds in used.items():
        if name not in NVIDIA:
            apart.update(kinds)
    return dict(apart)
