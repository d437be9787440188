"""Packed conversations through a transformers model, with no padding anywhere but inside attention.

The tokens of a batch are one row for embedding, norms, projections and head, to which each token is by itself, and of
that row only those are there that a loss depends on. Attention alone has to know who is whose neighbour. On a processor
it takes the documents one by one; elsewhere it puts its queries, keys and values into the rows that the batch came in,
and takes its answers out again. transformers calls it by a name that is registered here, and hands it what the trunk
was called with.

Shapes: B rows, T places, N tokens, H heads, K key/value heads, S head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lib.model.document_attention import document_attention
from lib.trainers.loader import IGNORED
from lib.trainers.objectives import positions

_NAME = "smelt_packed"  # of the attention, for transformers
_BY_DOCUMENT = ("cpu",)  # devices on which many small products cost little


class Layout(NamedTuple):
    """Which token is where."""

    token_BT: Tensor  # int64: the token at a place of the rows, 0 where there is none
    there_BT: Tensor  # bool: whether there is one
    place_N: Tensor  # int64: the place of a token, counted through all rows


def lay_out(labels_BT: Tensor, documents_BT: Tensor) -> Layout:
    """The tokens up to the last label of their document: no loss depends on the others, nor on padding.

    The first one is always there, so that a share of a batch without any label has something to compute.
    """
    length = labels_BT.shape[1]
    places_T = torch.arange(length, device=labels_BT.device)
    labelled_BT = torch.where(labels_BT != IGNORED, places_T, length)
    next_BT = labelled_BT.flip(1).cummin(dim=1).values.flip(1)  # the first place from here on that has a label
    there_BT = documents_BT.gather(1, next_BT.clamp(max=length - 1)) == documents_BT
    there_BT &= next_BT < length
    there_BT[0, 0] = True
    place_N = there_BT.flatten().nonzero()[:, 0]
    token_BT = torch.zeros_like(labels_BT).flatten()
    token_BT[place_N] = torch.arange(len(place_N), device=labels_BT.device)
    return Layout(token_BT.view_as(labels_BT), there_BT, place_N)


class _IntoRows(torch.autograd.Function):
    """(N, ...) -> (B, T, ...). Each token has one place, and its gradient is that of the place: nothing is summed."""

    @staticmethod
    def forward(ctx, x_N: Tensor, token_BT: Tensor, place_N: Tensor) -> Tensor:
        ctx.save_for_backward(place_N)
        return x_N[token_BT]

    @staticmethod
    def backward(ctx, gradient_BT: Tensor) -> tuple[Tensor, None, None]:
        (place_N,) = ctx.saved_tensors
        return gradient_BT.flatten(0, 1)[place_N], None, None


class _OutOfRows(torch.autograd.Function):
    """The inverse: (B, T, D) -> (N, D)."""

    @staticmethod
    def forward(ctx, y_BTD: Tensor, token_BT: Tensor, there_BT: Tensor, place_N: Tensor) -> Tensor:
        ctx.save_for_backward(token_BT, there_BT)
        return y_BTD.flatten(0, 1)[place_N]

    @staticmethod
    def backward(ctx, gradient_ND: Tensor) -> tuple[Tensor, None, None, None]:
        token_BT, there_BT = ctx.saved_tensors
        return torch.where(there_BT[:, :, None], gradient_ND[token_BT], 0), None, None, None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    starts: Tensor | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: (1, H, N, S), 2 x (1, K, N, S) -> (1, N, H, S)."""
    if starts is None and layout is None:  # asked for a text, or for another batch than ours
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    size = query.shape[-1]
    scaling = size**-0.5 if scaling is None else scaling
    x_NHS = [x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value)]
    if starts is not None:
        return document_attention(*x_NHS, starts, scaling)[None], None
    token_BT, there_BT, place_N = layout
    x_BHTS = [_IntoRows.apply(x, token_BT, place_N).transpose(1, 2) for x in x_NHS]
    grouped = key.shape[1] < query.shape[1]
    y_BHTS = F.scaled_dot_product_attention(*x_BHTS, attention_mask, scale=scaling, enable_gqa=grouped)
    y_ND = _OutOfRows.apply(y_BHTS.transpose(1, 2).flatten(2), token_BT, there_BT, place_N)
    return y_ND.view(1, len(place_N), -1, size), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)


class Trunk:
    """All of a transformers model but its head, on packed rows.

    Args:
        causal: with or without adapters. Its attention becomes the one of this module, which does the same.
    """

    def __init__(self, causal: PreTrainedModel) -> None:
        self._model = causal.base_model
        causal.config._attn_implementation = _NAME

    @property
    def blocks(self) -> list[nn.Module]:
        return [block for module in self._model.modules() if isinstance(module, nn.ModuleList) for block in module]

    def __call__(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The states before the head and the labels (N,) of the tokens that there are."""
        layout = lay_out(labels_BT, documents_BT)
        tokens_1N, positions_1N, labels_1N = (
            each.flatten()[layout.place_N][None] for each in (inputs_BT, positions(documents_BT), labels_BT)
        )
        # A mask of four dimensions is handed on by transformers as it is. What is handed to blocks beside the tokens is
        # little: two lengths that are the same by chance are one length to torch.compile, until they differ.
        if documents_BT.device.type in _BY_DOCUMENT:
            mask, where = documents_BT.new_empty(1, 1, 1, 1), {"starts": (positions_1N[0] == 0).nonzero()[:, 0]}
        else:
            mask, where = _mask(documents_BT), {"layout": layout}
        x_1ND = self._model(
            input_ids=tokens_1N, position_ids=positions_1N, attention_mask=mask, use_cache=False, **where
        ).last_hidden_state
        return x_1ND[0], labels_1N[0]


def _mask(documents_BT: Tensor) -> Tensor:
    """(B, 1, T, T) bool: what is seen."""
    places_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    seen_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return (seen_BTT & (places_T[:, None] >= places_T))[:, None]


@torch.no_grad()
def trunk(causal: PreTrainedModel) -> Trunk | None:
    """The trunk of a model; None where another attention, mask or head than the usual one would get lost.

    Tried out: transformers' own forward pass of two conversations, one after the other, gives the same logits.
    """
    config = causal.config.get_text_config()
    unusual = getattr(config, "sliding_window", None) or getattr(config, "attention_dropout", 0.0)
    if unusual or not causal._supports_attention_backend:
        return None
    was_training, before = causal.training, causal.config._attn_implementation
    causal.eval()
    device = causal.get_input_embeddings().weight.device
    tokens = torch.arange(1, 12, device=device)
    expected = torch.cat([causal(input_ids=part[None], use_cache=False).logits[0] for part in tokens.split([6, 5])])
    made = Trunk(causal)
    documents = torch.tensor([[0] * 6 + [1] * 5], device=device)
    try:
        states, _ = made(tokens[None], tokens[None], documents)
        found = causal.get_output_embeddings()(states)
        same = torch.allclose(found, expected, rtol=0, atol=1e-2 * expected.std().item())
    except (TypeError, ValueError, AttributeError):  # an argument that is not handed on, or not taken
        same = False
    causal.train(was_training)
    if not same:
        causal.config._attn_implementation = before
    return made if same else None
