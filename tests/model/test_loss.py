"""The chunked loss against torch's own cross-entropy on whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib.model import loss
from lib.model.loss import linear_cross_entropy


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    return x, weight, torch.randint(50, (37,), generator=generator)


@pytest.mark.parametrize("group", [2**26, 50 * 10, 1])
@pytest.mark.parametrize("rows", [{}, {"cpu": 7}])
def test_loss_and_gradients_are_those_of_whole_logits(case, group: int, rows: dict, monkeypatch) -> None:
    monkeypatch.setattr(loss, "_GROUP", {"cpu": group})
    monkeypatch.setattr(loss, "_ROWS", rows)
    x, weight, labels = case
    found = linear_cross_entropy(x, weight, labels) / 3
    expected = F.cross_entropy((x.double() @ weight.double().T), labels, reduction="sum") / 3
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight)), torch.autograd.grad(expected, (x, weight)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_changes_neither_the_loss_nor_the_gradient_of_its_input(case) -> None:
    x, weight, labels = case
    whole, frozen = (linear_cross_entropy(x, each, labels) for each in (weight, weight.detach()))
    assert torch.equal(whole, frozen)
    assert torch.equal(*(torch.autograd.grad(value, x)[0] for value in (whole, frozen)))


def test_without_gradient_the_loss_is_the_same(case) -> None:
    x, weight, labels = case
    with torch.no_grad():
        alone = linear_cross_entropy(x, weight, labels)
    assert alone == linear_cross_entropy(x, weight, labels).detach()


def test_in_bf16_the_gradient_is_as_good_as_that_of_whole_logits(case) -> None:
    """Measured against fp64: the error of the blocks is at most that of autocast on whole logits, and a half."""
    x, weight, labels = case
    exact = torch.autograd.grad(F.cross_entropy(x.double() @ weight.double().T, labels, reduction="sum"), (x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        ours = torch.autograd.grad(linear_cross_entropy(x, weight, labels), (x, weight))
        whole = torch.autograd.grad(F.cross_entropy((x @ weight.T).float(), labels, reduction="sum"), (x, weight))
    for mine, theirs, true in zip(ours, whole, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - true).norm() <= 1.5 * (theirs - true).norm()


def test_large_logits_do_not_overflow() -> None:
    x, weight = torch.full((2, 4), 200.0, requires_grad=True), torch.eye(4, requires_grad=True)
    value = linear_cross_entropy(x * torch.tensor([1.0, -1.0, 3.0, 0.0]), weight, torch.tensor([2, 0]))
    assert value.item() == pytest.approx(400.0)
    value.backward()
    assert x.grad.isfinite().all()


def test_no_place_with_loss_is_no_loss() -> None:
    x, weight = torch.zeros(0, 4, requires_grad=True), torch.eye(4, requires_grad=True)
    value = linear_cross_entropy(x, weight, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert not weight.grad.any()
