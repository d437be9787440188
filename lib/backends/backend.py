"""What a backend is: everything that the trainer asks of a device. `lib/backends/select.py` chooses one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from lib.backends.peak_rate import peak_rate


@dataclass(frozen=True)
class Compilation:
    """Whether models are compiled here, and why or why not, in a few words for the log."""

    on: bool
    reason: str
    possible: bool = True  # whether it could be switched on where it is off


class Backend(ABC):
    """One kind of device, as this machine has it.

    Attributes:
        name: cpu, cuda, rocm, mps or mlx.
        device: torch's name for it.
        precisions: those that it multiplies matrices quickly in, of fp32, bf16 and fp8.
        collectives: torch's name for how processes on such devices exchange gradients; None where they cannot.
        framework: whose engine trains on it.
        matrix_size: the side of a matrix that is large enough to keep the device busy.
        attention: the quickest way to compute attention, of lib.model.attention.WAYS.
    """

    name: ClassVar[str]
    device: torch.device
    precisions: tuple[str, ...]
    collectives: ClassVar[str | None]
    framework: ClassVar[Literal["torch", "mlx"]] = "torch"
    matrix_size: ClassVar[int]
    attention: str = "sdpa"

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 matrix products are quick."""
        return "bf16" in self.precisions

    @property
    @abstractmethod
    def model_name(self) -> str:
        """What the maker calls the device."""

    @abstractmethod
    def compilation(self) -> Compilation:
        """Whether this backend gains by torch.compile and has what that needs. SMELT_COMPILE is not looked at."""

    @property
    def compiles(self) -> bool:
        """Whether this backend is to compile, SMELT_COMPILE apart."""
        return self.compilation().on

    @abstractmethod
    def memory_mib(self) -> float:
        """The most memory held so far: of the device, or of the process where both share it."""

    @abstractmethod
    def total_memory_mib(self) -> float:
        """The memory that there is."""

    @abstractmethod
    def product(self, size: int, precision: str) -> Callable[[], None]:
        """What multiplies two square matrices of `size` in `precision` and returns when the product is there."""

    def peak_flops(self, precision: str) -> float:
        """Operations per second of matrix products in `precision`, as measured (lib/backends/peak_rate.py)."""
        return peak_rate(self, precision)

    def watts(self) -> float | None:
        """The power drawn now, or since the last call where only energy is counted; None where it cannot be read."""
        return None

    def power_limit_watts(self) -> float | None:
        """The power that the device may draw; None where it cannot be read."""
        return None

    def describe(self) -> str:
        return f"{self.model_name} ({self.name}), {' '.join(self.precisions)}"
