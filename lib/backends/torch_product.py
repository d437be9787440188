"""One matrix product with torch, for measuring the rate of a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def torch_product(
    device: torch.device, size: int, precision: str, synchronise: Callable[[], None]
) -> Callable[[], None]:
    """What multiplies two square matrices of `size` on `device` and waits.

    fp8 is the scaled product of e4m3 matrices with bf16 results, which float8 training makes. The numbers are random:
    a GPU multiplies zeros and ones with less power, and so at a higher clock.
    """
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator, device=device) for _ in range(2))
    multiply = _scaled(left, right) if precision == "fp8" else _plain(left, right, precision)

    def product() -> None:
        with torch.no_grad():
            multiply()
        synchronise()

    return product


def _plain(left: Tensor, right: Tensor, precision: str) -> Callable[[], Tensor]:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = left.to(dtype), right.to(dtype)
    return lambda: left @ right


def _scaled(left: Tensor, right: Tensor) -> Callable[[], Tensor]:
    # The MI300 has an e4m3 of its own, without a negative zero.
    arch = getattr(torch.cuda.get_device_properties(), "gcnArchName", "") if left.is_cuda else ""
    e4m3 = torch.float8_e4m3fnuz if arch.startswith("gfx942") else torch.float8_e4m3fn
    left, right = left.to(e4m3), right.to(e4m3).t()
    one = torch.ones((), device=left.device)
    return lambda: torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
