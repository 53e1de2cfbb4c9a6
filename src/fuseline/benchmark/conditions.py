"""What the numbers depend on besides the bundle: who else wanted the processor, clocks, memory, versions."""

from __future__ import annotations

import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fuseline.records import Contention

TOO_MUCH = 0.05
"""Part of the time that a processor may be waited for; beyond it two equal sides no longer look alike."""
GPU_CLOCKS = ("gpu now", "gpu most", "gpu memory now")
ASKING_S = 20
PRESSURE, TASKS, CLOCKS = Path("/proc/pressure/cpu"), Path("/proc/self/task"), Path("/sys/devices/system/cpu")


class Watch:
    """Tells how the processor was contended for from its making on."""

    def __init__(self) -> None:
        self._before = _look()

    def read(self) -> Contention:
        """Return what has happened so far."""
        wall, cpu, pressed, (ran, waited) = _look()
        wall_0, cpu_0, pressed_0, (ran_0, waited_0) = self._before
        seconds, wanted = wall - wall_0, ran - ran_0 + waited - waited_0
        return Contention(
            seconds=seconds,
            cpu_seconds=cpu - cpu_0,
            cpu_pressure=None if pressed is None or pressed_0 is None else (pressed - pressed_0) / seconds,
            queue_delay=max(0.0, waited - waited_0) / wanted if wanted > 0 else None,
        )


def _look() -> tuple[float, float, float | None, tuple[float, float]]:
    return time.perf_counter(), time.process_time(), _read_pressure(), _read_queue()


def _read_pressure() -> float | None:
    """Return seconds in which some task waited, since the machine started; the system counts them in microseconds."""
    try:
        some = PRESSURE.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    return int(some.rpartition("total=")[2]) / 1e6


def _read_queue() -> tuple[float, float]:
    """Return seconds that this process's living threads had a processor for, and waited for one."""
    ran = waited = 0
    for file in TASKS.glob("*/schedstat"):
        try:
            on, queued, _ = map(int, file.read_text(encoding="ascii").split())
        except OSError:  # the thread has just ended
            continue
        ran, waited = ran + on, waited + queued
    return ran / 1e9, waited / 1e9


def why_invalid(found: Contention) -> str:
    """Say why numbers taken meanwhile do not count; nothing where they do."""
    parts = {"some task waited for a processor": found.cpu_pressure, "this process waited for one": found.queue_delay}
    if all(part is None for part in parts.values()):
        return "the system does not tell whether others wanted the processor"
    told = [f"{what} in {part:.0%} of the time" for what, part in parts.items() if part is not None and part > TOO_MUCH]
    return f"{' and '.join(told)}, more than {TOO_MUCH:.0%}" if told else ""


def clocks_mhz() -> dict[str, float]:
    """Return the clocks of the first processor and GPU; without those that the system hides."""
    names = {"now": "scaling_cur_freq", "least": "scaling_min_freq", "most": "scaling_max_freq"}
    files = {key: CLOCKS / "cpu0" / "cpufreq" / name for key, name in names.items()}
    found = {key: int(file.read_text(encoding="ascii")) / 1000 for key, file in files.items() if file.is_file()}
    told = _ask_gpu("clocks.sm", "clocks.max.sm", "clocks.mem")
    return found | {key: float(mhz) for key, mhz in zip(GPU_CLOCKS, told, strict=False) if mhz.isdecimal()}


def _ask_gpu(*what: str) -> list[str]:
    """Ask the driver's tool about the first GPU; nothing where there is neither."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(what)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=ASKING_S)
    except subprocess.TimeoutExpired:
        return []
    return [part.strip() for part in done.stdout.strip().split(",")] if done.returncode == 0 else []


def memory_bytes() -> int:
    """Return what the process holds in memory now; its peak where the system does not tell."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return peak_memory_bytes()


def peak_memory_bytes() -> int:
    """Return the most that the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Return the versions that speed depends on, torch's where it is compared with, and a GPU's driver's."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": ort.__version__}
    found |= {name: sys.modules[name].__version__ for name in ("torch",) if name in sys.modules}
    return found | dict(zip(("driver",), _ask_gpu("driver_version"), strict=False))


def cpu_name() -> str:
    """Return the processor's model name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
