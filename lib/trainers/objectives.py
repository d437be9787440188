"""What is minimised. One function serves next-token training and chat: the labels say where the loss is.

Logits are computed there only. The head of a small model with a large vocabulary costs as much as its blocks, and in a
chat only the answers carry loss, a third of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

# model, tokens (B, T), places (B, T) that are true at N positions -> logits (N, V) of those
Forward = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy_sum(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """The summed negative log-likelihood of the labels, in nats and fp32."""
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


def decoder_logits(model: nn.Module, tokens_BT: Tensor, keep_BT: Tensor) -> Tensor:
    return model(tokens_BT, keep_BT)


def transformers_logits(model: nn.Module, tokens_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """Of a peft model around a transformers model. Padding is on the right, where causal attention cannot see it."""
    causal = model.get_base_model()
    x_BTD = causal.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    return causal.lm_head(x_BTD[keep_BT])
