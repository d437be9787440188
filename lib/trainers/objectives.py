"""What is minimised. One function serves next-token training and chat: the labels say where the loss is."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lib.trainers.loader import IGNORED

Forward = Callable[[nn.Module, Tensor], Tensor]  # model, tokens (B, T) -> logits (B, T, V)


def cross_entropy_sum(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """The summed negative log-likelihood of the labels, in nats and fp32, over the positions that carry loss."""
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")


def decoder_logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    return model(tokens_BT)


def transformers_logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Logits of a transformers model. Padding is on the right, where causal attention cannot see it: no mask needed."""
    return model(input_ids=tokens_BT, use_cache=False).logits
