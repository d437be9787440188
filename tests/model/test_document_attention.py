"""Attention by document against torch's own on each document alone."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.model.document_attention import _attention, document_attention

STARTS = torch.tensor([0, 7, 8, 19])
TOKENS = 24


def draw(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((TOKENS, 6, 8), (TOKENS, 2, 8), (TOKENS, 2, 8))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def expected(q_NHS: Tensor, k_NKS: Tensor, v_NKS: Tensor, scale: float) -> Tensor:
    outputs = []
    for start, end in itertools.pairwise((*STARTS.tolist(), TOKENS)):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (q_NHS, k_NKS, v_NKS))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        outputs.append(y[0].transpose(0, 1))
    return torch.cat(outputs)


def test_it_is_torchs_attention_on_each_document() -> None:
    given = draw(torch.float64)
    found = document_attention(*given, STARTS, 0.3)
    torch.testing.assert_close(found, expected(*given, 0.3))
    weight = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    mine, theirs = (
        torch.autograd.grad((y * weight).sum(), given) for y in (found, expected(*given, 0.3))
    )  # fmt: skip
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_in_bf16_it_is_as_near_to_the_exact_result_as_torchs() -> None:
    given = draw(torch.bfloat16)
    exact = expected(*(x.double() for x in given), 0.3)
    errors = [(y.double() - exact).norm() for y in (document_attention(*given, STARTS, 0.3), expected(*given, 0.3))]
    assert errors[0] < 1.5 * errors[1]


def test_torch_finds_the_operator_sound() -> None:
    torch.library.opcheck(_attention, (*draw(torch.float32), STARTS, 0.3))
