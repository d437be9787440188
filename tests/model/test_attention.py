"""Three ways of masked attention give what the definition gives, and no document sees another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib.model.attention import DENSE_TOKENS, WAYS
from tests.model.test_decoder import CONFIG, random_decoder

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 9 + [2] * 2, [0] * 16])


def by_definition(q: Tensor, k: Tensor, v: Tensor, documents: Tensor) -> Tensor:
    """One query at a time, in fp64, over the keys that it may see."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for row, document in enumerate(documents.tolist()):
        for head in range(q.shape[1]):
            shared = head // (q.shape[1] // k.shape[1])
            for place in range(q.shape[2]):
                seen = [key for key in range(place + 1) if document[key] == document[place]]
                scores = (k[row, shared, seen].double() @ q[row, head, place].double()) / q.shape[3] ** 0.5
                out[row, head, place] = scores.softmax(0) @ v[row, shared, seen].double()
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_definition(way: str, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, heads, 16, 8, generator=generator) for heads in (4, kv_heads, kv_heads))
    make_mask, attend = WAYS[way]
    found = attend(q, k, v, make_mask(DOCUMENTS))
    torch.testing.assert_close(found.double(), by_definition(q, k, v, DOCUMENTS), rtol=1e-5, atol=1e-5)
    alone = attend(q, k, v, make_mask(None))
    torch.testing.assert_close(alone.double(), by_definition(q, k, v, torch.zeros(2, 16)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["dense", "sdpa"])
def test_gradients_do_not_depend_on_the_way(way: str) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, heads, 16, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2)]
    make_mask, attend = WAYS[way]
    upstream = torch.randn(2, 4, 16, 8, generator=generator)
    found = torch.autograd.grad(attend(*inputs, make_mask(DOCUMENTS)), inputs, upstream)
    doubles = [part.detach().double().requires_grad_() for part in inputs]
    scores = doubles[0] @ doubles[1].repeat_interleave(2, 1).transpose(2, 3) / 8**0.5
    seen = (DOCUMENTS[:, :, None] == DOCUMENTS[:, None, :]).tril()[:, None]
    result = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ doubles[2].repeat_interleave(2, 1)
    for one, other in zip(found, torch.autograd.grad(result, doubles, upstream.double()), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_long_rows_are_not_dense() -> None:
    """Where dense falls back to sdpa, the numbers stay."""
    length = DENSE_TOKENS + 8
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 1, length, 4, generator=generator) for _ in range(3))
    documents = (torch.arange(length) // 300)[None]
    one, other = (WAYS[way].attend(q, k, v, WAYS[way].make_mask(documents)) for way in ("dense", "sdpa"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_neighbour_changes_nothing(way: str) -> None:
    """The documents beside one in its row may be any: its logits are those that it has alone."""
    model = random_decoder(CONFIG)
    model.attend_by(way)
    before, own, after = (torch.randint(CONFIG.vocab_size, (1, count)) for count in (7, 12, 5))
    numbers = torch.tensor([[0] * 7 + [1] * 12 + [2] * 5])
    alone = model(own)
    for neighbours in range(3):
        row = torch.cat([(before + neighbours) % 97, own, (after * 3 + neighbours) % 97], dim=1)
        torch.testing.assert_close(model(row, numbers)[:, 7:19], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(row)[:, 7:19], alone, atol=1e-2)  # without the numbers it does see them
