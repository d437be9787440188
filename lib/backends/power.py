"""Power drawn, in watts, where the system lets a user read it.

NVIDIA through NVML, AMD through the driver's files in /sys (hwmon), processors through RAPL's energy counters, which on
most systems are for root alone. Apple shows power to root alone (`powermetrics`), so it stays unread.
"""

from __future__ import annotations

import time
from pathlib import Path

from lib.pipeline.record import energy_microjoules

SYSTEM = Path("/sys")


class Rapl:
    """Processor packages, which count energy: power is that of the time between two readings."""

    def __init__(self, system: Path = SYSTEM) -> None:
        self._system = system
        self._time, self._energy = time.monotonic(), energy_microjoules(system)

    def watts(self) -> float | None:
        before, started = self._energy, self._time
        self._time, self._energy = time.monotonic(), energy_microjoules(self._system)
        used = [after - before[name] for name, after in self._energy.items() if name in before]
        if not used or min(used) < 0 or self._time <= started:  # unreadable, or a counter has wrapped around
            return None
        return sum(used) / 1e6 / (self._time - started)

    def limit_watts(self) -> float | None:
        """The long-term limit of all packages."""
        files = sorted(self._system.glob("class/powercap/intel-rapl:?/constraint_0_power_limit_uw"))
        limits = [_number(file) for file in files]
        return sum(limits) / 1e6 if limits and None not in limits else None


class Hwmon:
    """An AMD GPU, by its address on the PCI bus, such as 0000:03:00.0."""

    def __init__(self, address: str, system: Path = SYSTEM) -> None:
        self._folders = sorted((system / "bus/pci/devices" / address / "hwmon").glob("hwmon*"))

    def _first(self, *names: str) -> float | None:
        values = (_number(folder / name) for folder in self._folders for name in names)
        return next((value / 1e6 for value in values if value is not None), None)

    def watts(self) -> float | None:
        return self._first("power1_average", "power1_input")  # the second on newer cards

    def limit_watts(self) -> float | None:
        return self._first("power1_cap")


class Nvml:
    """An NVIDIA GPU, by the UUID that torch knows it by; CUDA_VISIBLE_DEVICES may have renumbered the cards."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml, self._card = pynvml, None
        try:
            pynvml.nvmlInit()
            self._card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        except pynvml.NVMLError:  # no driver library, as in some containers, or a slice of a card (MIG)
            pass

    def watts(self) -> float | None:
        return self._milliwatts("nvmlDeviceGetPowerUsage")

    def limit_watts(self) -> float | None:
        return self._milliwatts("nvmlDeviceGetEnforcedPowerLimit")

    def _milliwatts(self, reading: str) -> float | None:
        if self._card is None:
            return None
        try:
            return getattr(self._nvml, reading)(self._card) / 1000
        except self._nvml.NVMLError:
            return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
