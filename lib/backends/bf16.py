"""Whether bf16 is quick here, where nothing else is asked of a backend."""

from __future__ import annotations

import torch


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware.

    torch's own `_is_mkldnn_bf16_supported` is true on any AVX-512 processor, where bf16 is emulated: four times slower
    than fp32 on one without AMX or AVX512-BF16 (see docs/LOG.md).
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
