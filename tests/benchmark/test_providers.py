"""However a GPU is asked for that is not there, it is caught, and what is missing is named.

Each case is a process of its own with the real onnxruntime. Its NVIDIA libraries are those of a folder that the case
fills, and where a case has a driver, that is a library compiled here which says that there is a device. The libraries
are empty but for their names: to load a provider the linker asks for no more, until it looks for their symbols.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort
import pytest

from fuseline.benchmark.providers import find_fallen, find_missing, why_not

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
DRIVER = """
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGetName(char *name, int length, int device) { __builtin_strcpy(name, "Pretended GPU"); return 0; }
"""
NEEDED = {
    CUDA: ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13"],
    TENSORRT: ["libcublas.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudart.so.13", "libcudnn.so.9"],
}
ASK = """
import json, sys
from pathlib import Path
import onnxruntime as ort
from fuseline.benchmark.providers import find_missing, why_not
from fuseline.errors import BundleError
from fuseline.runtime.session import assigned, describe_device, open_session, providers_used
asked, options = json.loads(sys.argv[2])
found = {"get_device": ort.get_device(), "built": ort.get_available_providers()}
try:
    session = open_session(Path(sys.argv[1]), asked, 1, options)
    used = providers_used(session)
    found |= {"used": used, "device": describe_device(used), "missing": find_missing(asked, assigned(session))}
except BundleError as error:
    found |= {"error": str(error), "missing": {name: why_not(name) for name in asked}}
print("\\n" + json.dumps(found))
"""
HAS_GPU_BUILD = CUDA in ort.get_available_providers()
pytestmark = [
    pytest.mark.skipif(not HAS_GPU_BUILD, reason="needs onnxruntime-gpu"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]


@dataclass(frozen=True)
class Case:
    """What there is, what is asked for, and what has to be said."""

    asked: tuple[str, ...]
    says: str
    driver: tuple[int, int] | None = None
    """What cuInit returns, and how many devices there are; None where there is no driver."""
    without: str = ""
    """The library that is missing."""
    options: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


DEVICE = (0, 1)
NO_DEVICE = "the NVIDIA driver shows no device"
CASES = {
    "CUDA without a driver": Case((CUDA, CPU), "no NVIDIA driver: libcuda.so.1"),
    "TensorRT without a driver": Case((TENSORRT, CPU), "no NVIDIA driver: libcuda.so.1"),
    "CUDA alone, with nothing to fall back on": Case((CUDA,), "no NVIDIA driver: libcuda.so.1"),
    "CUDA with a driver and no device": Case((CUDA, CPU), f"{NO_DEVICE} (none)", (0, 0)),
    "TensorRT with a driver and no device": Case((TENSORRT, CPU), f"{NO_DEVICE} (none)", (0, 0)),
    "CUDA with its devices hidden": Case(
        (CUDA, CPU), f"{NO_DEVICE} (CUDA error 100), and CUDA_VISIBLE_DEVICES is ''", (100, 0),
        environment=(("CUDA_VISIBLE_DEVICES", ""),),
    ),
    "CUDA with a driver that does not start": Case((CUDA, CPU), f"{NO_DEVICE} (CUDA error 803)", (803, 0)),
    **{
        f"{provider} without {library}": Case((provider, CPU), library, DEVICE, without=library)
        for provider, libraries in NEEDED.items() for library in libraries
    },
    "CUDA with a library that is too old": Case((CUDA, CPU), "undefined symbol", DEVICE),
    "TensorRT with a library that is too old": Case((TENSORRT, CPU), "undefined symbol", DEVICE),
    "a wrong option of CUDA's": Case(
        (CUDA, CPU), "libcudart.so.13", DEVICE, without="libcudart.so.13", options=(("nonsense", "1"),),
    ),
    "TensorRT, then CUDA, neither there": Case((TENSORRT, CUDA, CPU), "no NVIDIA driver"),
    "a provider that is not built in": Case(("ROCMExecutionProvider", CPU), "this onnxruntime is built without it"),
}  # fmt: skip


def compile_library(code: str, name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.c"
    source.write_text(code)
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of all libraries that the providers name, each empty."""
    folder = tmp_path_factory.mktemp("libraries")
    for name in sorted({name for names in NEEDED.values() for name in names}):
        compile_library("", name, folder)
    return folder


@pytest.fixture(scope="module")
def graph(bundle: Path) -> Path:
    return bundle / "model.onnx"


def ask(case: Case, graph: Path, libraries: Path, place: Path) -> dict[str, object]:
    """Ask in a process that sees the case's libraries and no others of NVIDIA's."""
    (place / "site").mkdir()
    (place / "site" / "onnxruntime").symlink_to(Path(ort.__file__).parent)  # looks for NVIDIA's packages beside itself
    there = place / "there"
    there.mkdir()
    for library in libraries.glob("*.so.*[0-9]"):
        if case.driver == DEVICE and library.name != case.without:
            shutil.copy(library, there)
    if case.without and find_library(case.without.removeprefix("lib").partition(".so")[0]):
        (there / case.without).touch()  # the system has one; a broken one is found before it
    if case.driver is not None:
        status, count = case.driver
        compile_library(DRIVER.replace("STATUS", str(status)).replace("COUNT", str(count)), "libcuda.so.1", there)
    source = Path(importlib.util.find_spec("fuseline").origin).parents[1]
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"LD_LIBRARY_PATH": str(there), "PYTHONPATH": f"{place / 'site'}:{source}"} | dict(case.environment)
    asked = json.dumps([case.asked, {CUDA: dict(case.options)}])
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(graph), asked], check=False, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_at_least_twelve_ways_to_ask_are_looked_at() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("case", CASES)
def test_it_is_caught_and_what_is_missing_is_named(case: str, graph: Path, libraries: Path, tmp_path: Path) -> None:
    told = CASES[case]
    found = ask(told, graph, libraries, tmp_path)
    assert found["get_device"] == "GPU"  # whatever there is
    missing = found["missing"]
    assert isinstance(missing, dict)
    for provider in told.asked:
        assert (told.says in missing[provider]) if provider != CPU else provider not in missing
    if "error" in found:
        assert CPU not in told.asked
    else:
        assert found["used"] == [CPU]
        assert not str(found["device"]).startswith("GPU")


def test_what_can_work_is_not_missing() -> None:
    assert why_not(CPU) is None
    assert find_missing([CPU], {CPU: {"MatMul": 1}}) == {}


def test_a_provider_that_works_and_was_given_no_node_is_named_too() -> None:
    assert "took no node of this graph: CUDAExecutionProvider did" in find_missing([CPU], {CUDA: {"MatMul": 1}})[CPU]


def test_single_nodes_that_fell_back_to_the_cpu_are_told_by_kind() -> None:
    used = {CUDA: {"MatMul": 96, "Softmax": 12}, CPU: {"Shape": 4, "GatherND": 1}}
    assert find_fallen(used) == {"Shape": 4, "GatherND": 1}
    assert find_fallen({CPU: {"Shape": 4}}) == {}
