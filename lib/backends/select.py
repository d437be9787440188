"""Where to compute and how: the one place that asks what hardware there is."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from lib.pipeline.errors import SmeltError


@dataclass(frozen=True)
class Backend:
    name: str  # cpu, cuda, rocm, mps
    device: torch.device
    bf16: bool  # has fast bfloat16 matrix products

    def describe(self) -> str:
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else self.name
        return f"{device}, {'bf16' if self.bf16 else 'fp32'}, {torch.get_num_threads()} threads"


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware.

    torch's own `_is_mkldnn_bf16_supported` is true on any AVX-512 processor, where bf16 is emulated: four times slower
    than fp32 on one without AMX or AVX512-BF16 (see docs/LOG.md).
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def select_backend() -> Backend:
    """The backend that SMELT_DEVICE names (cpu, cuda, rocm, mps), else the best one present.

    Raises:
        SmeltError: an unknown name, or hardware that this machine or this build of torch does not have.
    """
    gpu = ("rocm" if torch.version.hip else "cuda") if torch.cuda.is_available() else None
    present = [name for name in (gpu, "mps" if torch.backends.mps.is_available() else None, "cpu") if name]
    name = os.environ.get("SMELT_DEVICE") or present[0]
    if name not in present:
        raise SmeltError(f"SMELT_DEVICE is {name!r}; this machine and this build of torch have: {', '.join(present)}")
    if name == "cpu":
        return Backend(name, torch.device("cpu"), _cpu_has_bf16())
    if name == "mps":
        return Backend(name, torch.device("mps"), bf16=False)
    return Backend(name, torch.device("cuda"), bf16=torch.cuda.is_bf16_supported(including_emulation=False))
