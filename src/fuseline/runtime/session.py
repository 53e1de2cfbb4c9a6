"""Open a bundle's graph, and tell which hardware really runs it."""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from fuseline.errors import BundleError

NO_GPU = "CPU, no GPU found"
NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
LOAD_ERRORS = (ort_state.Fail, ort_state.InvalidGraph, ort_state.InvalidProtobuf, ort_state.InvalidArgument,
               ort_state.NoSuchFile, ort_state.NotImplemented, ort_state.RuntimeException)  # fmt: skip


def open_session(
    model: Path,
    providers: Sequence[str],
    threads: int = 0,
    options: Mapping[str, Mapping[str, str]] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> ort.InferenceSession:
    """Open a graph with those of the asked-for providers that can work here, in their order.

    Args:
        threads: inside one operator; 0 leaves it to onnxruntime.
        options: of providers, by their names.
        files: the graph's bytes and those of its weights by their names, which are then not looked for on disk.

    Raises:
        BundleError: none of the providers can work here, or the graph cannot be loaded.
    """
    usable = [name for name in providers if can_work(name)]
    if not usable:
        raise BundleError(
            f"none of {', '.join(providers)} can work here; this machine has "
            f"{', '.join(filter(can_work, ort.get_available_providers()))}"
        )
    if usable[0] in NVIDIA:
        ort.preload_dlls()  # finds the CUDA libraries that came as Python packages
    settings = make_settings(threads)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with_options = [(name, dict((options or {}).get(name, {}))) for name in usable]
    source: str | bytes = str(model)
    if files is not None:
        source, weights = files[model.name], {name: data for name, data in files.items() if name != model.name}
        settings.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [len(data) for data in weights.values()]
        )
    try:
        return ort.InferenceSession(source, settings, providers=with_options)
    except LOAD_ERRORS as error:
        raise BundleError(f"{model}: onnxruntime cannot load it: {error}") from error


def make_settings(threads: int) -> ort.SessionOptions:
    """Make a session's settings; its threads sleep while there is no call, else they burn what others could use."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings


def can_work(provider: str) -> bool:
    """Tell whether a provider is built in and, for NVIDIA's, whether there is a GPU to run on."""
    if provider not in ort.get_available_providers():
        return False
    return provider not in NVIDIA or gpu_name() is not None


def gpu_name() -> str | None:
    """Return the first NVIDIA GPU's name, None without one.

    The driver is asked, not onnxruntime, whose get_device() says GPU on machines without any.
    """
    with contextlib.suppress(OSError):
        cuda = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value:
            name = ctypes.create_string_buffer(100)
            return name.value.decode() if cuda.cuDeviceGetName(name, 100, 0) == 0 else "NVIDIA GPU"
    return None


def providers_used(session: ort.InferenceSession) -> list[str]:
    """Return the providers that graph nodes were assigned to, most nodes first."""
    counts = {name: sum(kinds.values()) for name, kinds in assigned(session).items()}
    return sorted(counts, key=lambda name: -counts[name])


def assigned(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """Return, by provider, how many graph nodes of each kind it was assigned."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def describe_device(used: Sequence[str]) -> str:
    """Say in one sentence what ran the graph."""
    gpu = gpu_name()
    if gpu is None:
        return NO_GPU
    return f"GPU: {gpu}" if is_on_gpu(used) else f"CPU, though there is a GPU ({gpu})"


def is_on_gpu(used: Sequence[str]) -> bool:
    """Tell whether a GPU runs most nodes of a graph, of which these providers run some, most nodes first."""
    return bool(used) and used[0] in NVIDIA
