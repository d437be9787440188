"""What is minimised: modules that give the summed loss of a batch, so that compilers and wrappers see one forward.

The labels say where the loss is (IGNORED elsewhere), so that the caller divides by the tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

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


def apart(inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and labels (E, T) of the E documents that carry loss, one to a row; a row's end carries none."""
    places = positions(documents_BT).flatten()
    rows = (places == 0).cumsum(0) - 1
    shape = int(rows[-1]) + 1, int(places.max()) + 1
    inputs, labels = inputs_BT.new_zeros(shape), labels_BT.new_full(shape, IGNORED)
    inputs[rows, places], labels[rows, places] = inputs_BT.flatten(), labels_BT.flatten()
    carries = (labels != IGNORED).any(dim=1)
    carries[0] = True  # a share of a batch without any label has something to compute, too
    return inputs[carries], labels[carries]


class NextToken(nn.Module):
    """Next-token prediction by our decoder, on packed documents."""

    fixed_shapes = True

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        self._blocks: Callable[..., Tensor] | None = None
        self._exponentials = exponentials

    def compile(self) -> None:
        """Compile the blocks and the inner part of the loss, for this objective alone.

        The model by itself is left as it is: asked to continue a text, it would be compiled anew for every length.
        """
        self._blocks = torch.compile(self.model.model.forward, dynamic=False)
        self._exponentials = torch.compile(exponentials, dynamic=False)

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        blocks = self._blocks or self.model.model
        x_BTD = blocks(inputs_BT, self.model.make_mask(documents_BT))
        return linear_cross_entropy(
            x_BTD.flatten(0, 1), self.model.lm_head.weight, labels_BT.flatten(), self._exponentials
        )


class Chat(nn.Module):
    """Next-token prediction by a transformers model, or a peft model around one, on packed conversations.

    The head is computed only where there is loss: that of a small model with a large vocabulary costs as much as its
    blocks, and in a chat a third of the tokens carry loss. A model with an unusual attention or head (a window, a cap,
    a scale; lib/trainers/packed.py finds out) is given each conversation in a row of its own and computes the loss
    itself.

    Args:
        own_attention: whether the model has kernels of its own, which are to be left alone.
    """

    fixed_shapes = False

    def __init__(self, model: nn.Module, own_attention: bool = False) -> None:
        from lib.trainers.packed import trunk  # takes seconds to import, of which pretraining has no use

        super().__init__()
        self.model = model
        self._trunk = None if own_attention else trunk(self._causal)
        self._exponentials = exponentials

    @property
    def _causal(self) -> nn.Module:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def compile(self) -> None:
        """Compile one block for all blocks, with lengths left open: every batch has others."""
        if self._trunk is None:
            return
        # The first block's input wants no gradient where the embedding is frozen: it would be compiled on its own.
        for block in self._trunk.blocks[1:]:
            block.compile(dynamic=True)
        self._exponentials = torch.compile(exponentials, dynamic=True)

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        if self._trunk is None:
            return self._own_loss(*apart(inputs_BT, labels_BT, documents_BT))
        # Blocks are compiled for training alone; validation is rare, and they would be compiled anew for it.
        with nullcontext() if torch.is_grad_enabled() else torch.compiler.set_stance("force_eager"):
            x_ND, labels_N = self._trunk(inputs_BT, labels_BT, documents_BT)
        keep_N, head = labels_N != IGNORED, self._causal.get_output_embeddings()
        if type(head) is nn.Linear and head.bias is None:
            return linear_cross_entropy(x_ND[keep_N], head.weight, labels_N[keep_N], self._exponentials)
        logits_NV = head(x_ND[keep_N])  # peft has wrapped it
        return F.cross_entropy(logits_NV.float(), labels_N[keep_N], reduction="sum")

    def _own_loss(self, inputs_ET: Tensor, labels_ET: Tensor) -> Tensor:
        """As the model itself computes it, which wants each label where its token is, and so one place more."""
        tokens = F.pad(inputs_ET, (0, 1))
        labels = F.pad(labels_ET, (1, 0), value=IGNORED)
        return self.model(input_ids=tokens, labels=labels, num_items_in_batch=1, use_cache=False).loss
