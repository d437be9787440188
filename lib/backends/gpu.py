"""NVIDIA and AMD GPUs. torch calls both `cuda`, and both collectives `nccl`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch

from lib.backends.backend import Backend, Compilation
from lib.backends.power import Hwmon, Nvml
from lib.backends.torch_product import torch_product


class Gpu(Backend):
    """The GPU that torch has made current: under a launcher, that of this process."""

    collectives = "nccl"
    matrix_size = 8192

    def __init__(self) -> None:
        # cuBLAS gives the same sums again only with workspaces of fixed size, and reads this when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.device = torch.device("cuda")
        bf16 = ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        self.precisions = ("fp32", *bf16, *(("fp8",) if self._has_fp8() else ()))
        self._power = self._meter()
        # FlexAttention without compilation holds all scores of all heads.
        self.attention = "flex" if self.compilation().on else "sdpa"

    @abstractmethod
    def _has_fp8(self) -> bool:
        """Whether the card multiplies 8-bit floating-point matrices."""

    @abstractmethod
    def _meter(self) -> Nvml | Hwmon:
        """What reads the card's power."""

    @property
    def model_name(self) -> str:
        return torch.cuda.get_device_name()

    def compilation(self) -> Compilation:
        if not importlib.util.find_spec("triton"):
            return Compilation(False, "off: this build of torch has no Triton", False)
        if not any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang", "cc")))):
            return Compilation(False, "off: Triton found no C compiler", False)
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            return Compilation(
                False, "off: Python's headers (python3-dev) are missing, which compiled code needs", False
            )
        return Compilation(True, "on, with Triton")

    def memory_mib(self) -> float:
        return torch.cuda.max_memory_reserved() / 2**20

    def total_memory_mib(self) -> float:
        return torch.cuda.get_device_properties().total_memory / 2**20

    def product(self, size: int, precision: str) -> Callable[[], None]:
        return torch_product(self.device, size, precision, torch.cuda.synchronize)

    def watts(self) -> float | None:
        return self._power.watts()

    def power_limit_watts(self) -> float | None:
        return self._power.limit_watts()


class Cuda(Gpu):
    name = "cuda"

    def _has_fp8(self) -> bool:
        return torch.cuda.get_device_capability() >= (8, 9)  # Ada, Hopper, Blackwell

    def _meter(self) -> Nvml:
        return Nvml(str(torch.cuda.get_device_properties().uuid))


class Rocm(Gpu):
    name = "rocm"

    def _has_fp8(self) -> bool:
        # MI300, MI350 and the Radeon RX 9000; not the RX 7000 (gfx11).
        return torch.cuda.get_device_properties().gcnArchName.startswith(("gfx942", "gfx950", "gfx120"))

    def _meter(self) -> Hwmon:
        card = torch.cuda.get_device_properties()
        return Hwmon(f"{card.pci_domain_id:04x}:{card.pci_bus_id:02x}:{card.pci_device_id:02x}.0")
