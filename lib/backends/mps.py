"""The GPU of Apple silicon, through torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lib.backends.backend import Backend, Compilation
from lib.backends.torch_product import torch_product
from lib.pipeline.record import cpu_model


class Mps(Backend):
    name = "mps"
    collectives = None
    matrix_size = 4096

    def __init__(self) -> None:
        self.device = torch.device("mps")
        self.precisions = ("fp32",)
        self._peak = 0

    @property
    def model_name(self) -> str:
        return cpu_model()

    def compilation(self) -> Compilation:
        return Compilation(False, "off: on MPS it is slower or gives NaN (pytorch#150121)")

    def memory_mib(self) -> float:
        """Of the readings so far, the highest: Metal keeps no peak."""
        self._peak = max(self._peak, torch.mps.driver_allocated_memory())
        return self._peak / 2**20

    def total_memory_mib(self) -> float:
        return torch.mps.recommended_max_memory() / 2**20

    def product(self, size: int, precision: str) -> Callable[[], None]:
        return torch_product(self.device, size, precision, torch.mps.synchronize)
