"""In which precision matrices are multiplied. Weights, gradients' sums and moments stay fp32 in all of them.

bf16 is autocast: weights are rounded for each product (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740). fp8
rounds the three products of each linear layer in the blocks to 8 bits with one scale a tensor, found anew at every step
(Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433), through torchao; attention, norms and the head stay bf16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lib.backends.backend import Backend
from lib.params.training import Precision as Asked
from lib.pipeline.errors import SmeltError

HEAD = "lm_head"
FP8_MULTIPLE = 16  # what the kernels ask of both sides of a weight


@dataclass(frozen=True)
class Precision:
    """What a model is trained in: its name (bf16, fp32, fp8), and the dtype for autocast, None for none."""

    name: str
    autocast: torch.dtype | None


def choose_precision(asked: Asked, backend: Backend) -> str:
    """The precision for `asked` on this backend: auto is bf16 where that is quick and fp32 elsewhere.

    Raises:
        SmeltError: fp8 on a device that has none.
    """
    if asked == "auto":
        return "bf16" if backend.bf16 else "fp32"
    if asked == "fp8" and "fp8" not in backend.precisions:
        raise SmeltError(
            f"precision is fp8, and {backend.describe()} has no 8-bit products; NVIDIA from compute capability "
            f"8.9 (RTX 40, H100) and AMD's MI300 and RX 9000 have. Set it to auto or bf16"
        )
    return asked


def apply_precision(model: nn.Module, backend: Backend, asked: Asked) -> Precision:
    """Prepare `model` in place for the precision that `asked` means here. Names of weights stay as they are.

    Raises:
        SmeltError: fp8 on a device that has none, or of a model none of whose layers fits it.
    """
    name = choose_precision(asked, backend)
    if name == "fp8" and not convert_to_fp8(model):
        raise SmeltError(f"precision is fp8, and no layer of this model has sides that are multiples of {FP8_MULTIPLE}")
    return Precision(name, None if name == "fp32" else torch.bfloat16)


def fits_fp8(module: nn.Module, name: str) -> bool:
    """Whether a layer is converted: a linear one, not the head, whose sides the kernels can take."""
    return (
        isinstance(module, nn.Linear)
        and name.rpartition(".")[2] != HEAD
        and module.in_features % FP8_MULTIPLE == 0
        and module.out_features % FP8_MULTIPLE == 0
    )


def convert_to_fp8(model: nn.Module) -> list[str]:
    """Replace the linear layers that fit by torchao's, on the same weights; their names."""
    # It imports a second's worth of modules, and complains on machines without a GPU.
    from torchao.float8 import convert_to_float8_training

    names = [name for name, module in model.named_modules() if fits_fp8(module, name)]
    convert_to_float8_training(model, module_filter_fn=fits_fp8)
    return names
