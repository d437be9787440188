"""What is minimised: modules that give the summed loss of a batch, so that compilers and wrappers see one forward.

The labels say where the loss is (IGNORED elsewhere), so that the caller divides by the tokens of the whole batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lib.trainers.loader import IGNORED


def cross_entropy_sum(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """The summed negative log-likelihood of the labels, in nats and fp32."""
    return F.cross_entropy(logits_NV.float(), labels_N, ignore_index=IGNORED, reduction="sum")


class NextToken(nn.Module):
    """Next-token prediction by our decoder, on packed documents."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        logits_BTV = self.model(inputs_BT)
        return cross_entropy_sum(logits_BTV.flatten(0, 1), labels_BT.flatten())


class Chat(nn.Module):
    """Next-token prediction by a peft model around a transformers model, on conversations padded on the right.

    Causal attention cannot see what is on the right. The head is computed only where there is loss: that of a small
    model with a large vocabulary costs as much as its blocks, and in a chat a third of the tokens carry loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        causal = self.model.get_base_model()
        x_BTD = causal.model(input_ids=inputs_BT, use_cache=False).last_hidden_state
        keep_BT = labels_BT != IGNORED
        return cross_entropy_sum(causal.lm_head(x_BTD[keep_BT]), labels_BT[keep_BT])
