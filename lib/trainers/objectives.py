"""What is minimised: modules that give the summed loss of a batch, so that compilers and wrappers see one forward.

The labels say where the loss is (IGNORED elsewhere), so that the caller divides by the tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.model.decoder import Decoder
from lib.model.loss import exponentials, linear_cross_entropy
from lib.trainers.loader import IGNORED


def positions(documents_BT: Tensor) -> Tensor:
    """The place of each token within its document, from 0."""
    places_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return places_T - torch.where(begins_BT, places_T, 0).cummax(dim=1).values


class NextToken(nn.Module):
    """Next-token prediction by our decoder, on packed documents."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        self._blocks: Callable[..., Tensor] | None = None
        self._exponentials = exponentials

    def compile(self, **options: Any) -> None:
        """Compile the blocks and the inner part of the loss, for this objective alone.

        The model by itself is left as it is: asked to continue a text, it would be compiled anew for every length.
        """
        self._blocks = torch.compile(self.model.model.forward, **options)
        self._exponentials = torch.compile(exponentials, **options)

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        blocks = self._blocks or self.model.model
        x_BTD = blocks(inputs_BT, self.model.make_mask(documents_BT))
        return linear_cross_entropy(
            x_BTD.flatten(0, 1), self.model.lm_head.weight, labels_BT.flatten(), self._exponentials
        )


class Chat(nn.Module):
    """Next-token prediction by a transformers model, or a peft model around one, on packed conversations.

    The head is computed only where there is loss: that of a small model with a large vocabulary costs as much as its
    blocks, and in a chat a third of the tokens carry loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        # Where positions begin again, transformers masks attention to what is before.
        positions_BT = positions(documents_BT)
        x_BTD = causal.model(input_ids=inputs_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
        keep_BT = labels_BT != IGNORED
        logits_NV = causal.lm_head(x_BTD[keep_BT])  # peft may have wrapped the head
        return F.cross_entropy(logits_NV.float(), labels_BT[keep_BT], reduction="sum")
