"""The run record: what a run took and on which machine. No result depends on it."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import psutil


def energy_microjoules(system: Path = Path("/sys")) -> dict[str, int]:
    """Counters of the processor packages (RAPL, Intel and AMD), where the kernel lets this user read them."""
    counters = {}
    for path in system.glob("class/powercap/intel-rapl:?/energy_uj"):
        try:
            counters[path.parent.name] = int(path.read_text())
        except OSError:
            return {}
    return counters


def _versions(pins: list[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for pin in pins:
        name = pin.partition("==")[0].partition("[")[0]  # without extras: mlx[cpu]
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The processor's name, as its maker gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _high_water_kib(process: int | str) -> int | None:
    """The most memory that a running process has held, where /proc tells it."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def peak_kib() -> int:
    """Of this process. ru_maxrss holds what the process that started it had too: DVC's, for a stage."""
    if (peak := _high_water_kib("self")) is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes there


def _children_peak_kib() -> int:
    """Of the largest process that this one started: of those that have ended, and of workers that are still there."""
    running = (_high_water_kib(child.pid) or 0 for child in psutil.Process().children(recursive=True))
    return max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, *running, 0)


class Record:
    """Measures one run from its making to `finish`."""

    def __init__(self) -> None:
        self._started, self._energy = time.time(), energy_microjoules()

    def finish(self, stage: str, pins: list[str]) -> dict[str, Any]:
        used = [after - self._energy[name] for name, after in energy_microjoules().items() if name in self._energy]
        readable = used and min(used) >= 0  # the counters wrap around every few hours
        return {
            "stage": stage,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
            "seconds": round(time.time() - self._started, 2),
            "peak_memory_mib": round(max(peak_kib(), _children_peak_kib()) / 1024, 1),
            "energy_joules": round(sum(used) / 1e6, 1) if readable else None,
            "host": platform.node(),
            "system": platform.platform(),
            "cpu": cpu_model(),
            "versions": _versions(pins),
        }
