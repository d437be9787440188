"""Causal attention within documents: no token sees a later one, nor one of another document in its row.

Three ways to one result. Which is the quickest depends on the device, so that `lib/backends` names it:

    dense  scores as whole matrices; the quickest on a processor as long as rows are short
    sdpa   torch's fused kernels, with the scores of a tile in memory at a time
    flex   torch's FlexAttention, which leaves out tiles that the mask empties; it needs torch.compile

Shapes: B rows, T tokens, H heads, K key/value heads, S head size. documents_BT numbers the document of each token;
None stands for rows of one document.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DENSE_TOKENS = 1024  # the longest rows of `dense`: the scores of a head are then as large as a core's second cache
# Queries are cut into so many blocks, each of which meets the keys up to its own end alone: a quarter less to compute.
_BLOCKS = 2


class Way(NamedTuple):
    make_mask: Callable[[Tensor | None], Any]  # documents (B, T) -> what attend takes
    attend: Callable[[Tensor, Tensor, Tensor, Any], Tensor]  # (B, H, T, S), 2 x (B, K, T, S), mask -> (B, H, T, S)


def _bias(documents_BT: Tensor | None) -> Tensor | None:
    """(B, 1, T, T) to add to scores: 0, or minus infinity where a query must not look."""
    if documents_BT is None:
        return None
    place_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    seen_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    seen_BTT &= place_T[:, None] >= place_T[None, :]
    bias_BTT = torch.zeros(seen_BTT.shape, dtype=torch.bfloat16, device=seen_BTT.device)
    return bias_BTT.masked_fill_(~seen_BTT, -torch.inf)[:, None]


def _sdpa(q_BHTS: Tensor, k_BKTS: Tensor, v_BKTS: Tensor, bias_B1TT: Tensor | None) -> Tensor:
    bias_B1TT = None if bias_B1TT is None else bias_B1TT.to(q_BHTS.dtype)
    grouped = k_BKTS.shape[1] < q_BHTS.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTS, k_BKTS, v_BKTS, bias_B1TT, is_causal=bias_B1TT is None, enable_gqa=grouped
    )


def _dense(q_BHTS: Tensor, k_BKTS: Tensor, v_BKTS: Tensor, bias_B1TT: Tensor | None) -> Tensor:
    rows, heads, length, size = q_BHTS.shape
    if bias_B1TT is None or length > DENSE_TOKENS:
        return _sdpa(q_BHTS, k_BKTS, v_BKTS, bias_B1TT)
    groups = k_BKTS.shape[1]
    # The queries of all heads that share a key head are one tall matrix: fewer and larger products.
    q_NGTS = (q_BHTS * size**-0.5).reshape(rows * groups, heads // groups, length, size)
    k_NTS, v_NTS = k_BKTS.reshape(-1, length, size), v_BKTS.reshape(-1, length, size)
    edges = [length * part // _BLOCKS for part in range(_BLOCKS + 1)]
    outputs = []
    for start, end in itertools.pairwise(edges):
        q_NQS = q_NGTS[:, :, start:end].reshape(rows * groups, -1, size)
        scores = torch.bmm(q_NQS, k_NTS[:, :end].transpose(1, 2)).view(rows, heads, end - start, end)
        weights = (scores + bias_B1TT[:, :, start:end, :end]).softmax(-1, dtype=torch.float32).to(v_NTS.dtype)
        y_NQS = torch.bmm(weights.view(rows * groups, -1, end), v_NTS[:, :end])
        outputs.append(y_NQS.view(rows, heads, end - start, size))
    return torch.cat(outputs, dim=2)


def _tiles(documents_BT: Tensor | None) -> Any:
    if documents_BT is None:
        return None
    rows, length = documents_BT.shape

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents_BT[row, query] == documents_BT[row, key])

    return create_block_mask(seen, rows, None, length, length, device=documents_BT.device)


def _flex(q_BHTS: Tensor, k_BKTS: Tensor, v_BKTS: Tensor, tiles: Any) -> Tensor:
    if tiles is None:
        return _sdpa(q_BHTS, k_BKTS, v_BKTS, None)
    return flex_attention(q_BHTS, k_BKTS, v_BKTS, block_mask=tiles, enable_gqa=k_BKTS.shape[1] < q_BHTS.shape[1])


WAYS = {"dense": Way(_bias, _dense), "sdpa": Way(_bias, _sdpa), "flex": Way(_tiles, _flex)}
