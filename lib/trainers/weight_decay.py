"""Decoupled weight decay (https://arxiv.org/abs/1711.05101), plain or cautious."""

from __future__ import annotations

from torch import Tensor


def decay(weight: Tensor, update: Tensor, amount: float, cautious: bool) -> None:
    """Take the share `amount` (0 to 1) off the weight, in place; the update has still to be subtracted from it.

    Cautious: only where update and weight agree in sign, so that decay never works against the gradient (Chen et al.
    2025, https://arxiv.org/abs/2510.12402).
    """
    if not amount:
        return
    if cautious:
        weight.addcmul_(weight, (update * weight >= 0).to(weight.dtype), value=-amount)
    else:
        weight.mul_(1 - amount)
