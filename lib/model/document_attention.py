"""Causal attention of documents that follow one another with no padding between them, on a processor.

Each document's queries meet its own keys and no others: torch's fused kernel, once a document. It is an operator of its
own, because torch.compile cannot follow a loop over documents.

Shapes: N tokens, H heads, K key/value heads, S head size; L tokens of a document.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _spans(starts: Tensor, tokens: int) -> Iterator[slice]:
    """Where each document is."""
    return itertools.starmap(slice, itertools.pairwise((*starts.tolist(), tokens)))


def _heads(x_LHS: Tensor, heads: int) -> Tensor:
    """(1, H, L, S) as the kernel takes it, a key head once for each query head that shares it."""
    return x_LHS.transpose(0, 1).repeat_interleave(heads // x_LHS.shape[1], dim=0)[None]


@torch.library.custom_op("smelt::document_attention", mutates_args=())
def _attention(
    q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, starts: Tensor, scale: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    y_NHS, logsumexp_NH = _empty(q_NHS)
    for span in _spans(starts, len(q_NHS)):
        given = [_heads(x[span], q_NHS.shape[1]) for x in (q_NHS, k_NKS, v_NKS)]
        y_1HLS, logsumexp_1HL = _FORWARD(*given, 0.0, True, scale=scale)
        y_NHS[span], logsumexp_NH[span] = y_1HLS[0].transpose(0, 1), logsumexp_1HL[0].T
    return y_NHS, logsumexp_NH


def _empty(q_NHS: Tensor) -> tuple[Tensor, Tensor]:
    exact = torch.promote_types(q_NHS.dtype, torch.float32)
    return q_NHS.new_empty(q_NHS.shape), q_NHS.new_empty(q_NHS.shape[:2], dtype=exact)


@torch.library.custom_op("smelt::document_attention_backward", mutates_args=())
def _gradients(
    grad_NHS: Tensor, q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, y_NHS: Tensor, logsumexp_NH: Tensor,
    starts: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    heads, groups = q_NHS.shape[1], k_NKS.shape[1]
    grad_q, grad_k, grad_v = (x.new_empty(x.shape) for x in (q_NHS, k_NKS, v_NKS))
    for span in _spans(starts, len(q_NHS)):
        given = [_heads(x[span], heads) for x in (grad_NHS, q_NHS, k_NKS, v_NKS, y_NHS)]
        logsumexp_1HL = logsumexp_NH[span][None].transpose(1, 2)
        q_1HLS, *shared = _BACKWARD(*given, logsumexp_1HL, 0.0, True, scale=scale)
        grad_q[span] = q_1HLS[0].transpose(0, 1)
        for whole, part_1HLS in zip((grad_k, grad_v), shared, strict=True):
            whole[span] = part_1HLS[0].unflatten(0, (groups, -1)).sum(1).transpose(0, 1)
    return grad_q, grad_k, grad_v


@_attention.register_fake
def _(q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, starts: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return _empty(q_NHS)


@_gradients.register_fake
def _(
    grad_NHS: Tensor, q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, y_NHS: Tensor, logsumexp_NH: Tensor,
    starts: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (q_NHS, k_NKS, v_NKS))


def _keep(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q_NHS, k_NKS, v_NKS, starts, ctx.scale = inputs
    ctx.save_for_backward(q_NHS, k_NKS, v_NKS, *output, starts)


def _differentiate(ctx, grad_NHS: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    return *_gradients(grad_NHS, *ctx.saved_tensors, ctx.scale), None, None


_attention.register_autograd(_differentiate, setup_context=_keep)


def document_attention(q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, starts: Tensor, scale: float) -> Tensor:
    """(N, H, S): softmax(scale x q k^T) v within each document. Scores are fp32, whatever the inputs are.

    Args:
        starts: int64, where the documents start, from 0 and in order.
    """
    return _attention(q_NHS, k_NKS, v_NKS, starts, scale)[0]
