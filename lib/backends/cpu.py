"""The processor."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch

from lib.backends.backend import Backend, Compilation
from lib.backends.bf16 import has_bf16
from lib.backends.power import Rapl
from lib.backends.torch_product import torch_product
from lib.pipeline.record import cpu_model, peak_kib

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def system_memory_mib() -> float:
    """The machine's memory, or what a container may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return (min(total, int(limit)) if limit.isdigit() else total) / 2**20


def cpp_compilation() -> Compilation:
    """Whether torch.compile can make C++ of a model here: it calls $CXX, else g++, with Python's headers."""
    if sys.platform == "darwin":
        return Compilation(False, "off: slower than eager on a Mac's processor (pytorch#171764)")
    compiler = os.environ.get("CXX") or "g++"
    if not shutil.which(compiler):
        return Compilation(False, f"off: no C++ compiler ({compiler}) was found; install one, or train slower", False)
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return Compilation(False, "off: Python's headers (python3-dev) are missing, which compiled code needs", False)
    return Compilation(True, f"on, with {compiler}")


def keep_freed_memory() -> None:
    """Have glibc keep what it frees for the next allocation, where this is glibc.

    By default it returns every large tensor to the kernel at once, and the kernel clears each page of the next one: 3%
    of a training step of 4,096 tokens (0.499 s against 0.484, 5M weights).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


class Cpu(Backend):
    """The processor of this machine.

    Args:
        bf16: whether to compute in bf16; None: where the processor is quick in it.
    """

    name = "cpu"
    collectives = "gloo"
    matrix_size = 2048
    attention = "dense"

    def __init__(self, bf16: bool | None = None) -> None:
        keep_freed_memory()
        self.device = torch.device("cpu")
        self.precisions = ("fp32", "bf16") if (has_bf16() if bf16 is None else bf16) else ("fp32",)
        self._rapl = Rapl()

    @property
    def model_name(self) -> str:
        return cpu_model()

    def compilation(self) -> Compilation:
        return cpp_compilation()

    def memory_mib(self) -> float:
        return peak_kib() / 1024

    def total_memory_mib(self) -> float:
        return system_memory_mib()

    def product(self, size: int, precision: str) -> Callable[[], None]:
        return torch_product(self.device, size, precision, lambda: None)

    def watts(self) -> float | None:
        return self._rapl.watts()

    def power_limit_watts(self) -> float | None:
        return self._rapl.limit_watts()

    def describe(self) -> str:
        return f"{super().describe()}, {torch.get_num_threads()} threads"
