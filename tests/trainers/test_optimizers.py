from __future__ import annotations

import pytest
import torch

from lib.model.decoder import Decoder
from lib.trainers.optimizers import Muon, for_pretraining, orthogonalise, set_rates
from tests.trainers.test_loop import CONFIG, SETTINGS


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalise_keeps_directions_and_evens_out_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(1, 10, len(values))
    result = orthogonalise(left @ torch.diag(values) @ right)
    inside = left.T @ result @ right.T  # in the basis of singular vectors it is diagonal
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), atol=1e-4, rtol=0)
    assert 0.65 < inside.diagonal().min() <= inside.diagonal().max() < 1.25


def test_muon_agrees_with_torch() -> None:
    """torch.optim.Muon iterates in bf16, so the two agree to its precision."""
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(48, 16)) for _ in range(2))
    one = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.02)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for _ in range(5):
        ours.grad = torch.randn(48, 16)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    moved = (theirs - 1).norm()
    assert (ours - theirs).norm() < 0.03 * moved


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_in_one_group_at_its_own_rate(kind: str, tied: bool) -> None:
    from dataclasses import replace

    model = Decoder(replace(CONFIG, tie_embeddings=tied))
    changes = {"optimizer": kind, "learning_rate": 0.1, "embedding_learning_rate": 0.2, "head_learning_rate": 0.3}
    optimizers = for_pretraining(model, SETTINGS.model_copy(update=changes))
    assert [type(optimizer).__name__ for optimizer in optimizers] == (
        ["Muon", "AdamW"] if kind == "muon" else ["AdamW"]
    )
    set_rates(optimizers, 0.5)
    rates = {
        id(weight): (group["lr"], group["weight_decay"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(rates) == sum(len(group["params"]) for o in optimizers for group in o.param_groups)
    for name, weight in model.named_parameters():
        if name == "model.embed_tokens.weight":
            expected = (0.1, 0.0)
        elif weight.ndim == 2 and name != "lm_head.weight":
            expected = (0.05, SETTINGS.weight_decay)
        else:
            expected = (0.15, 0.0)
        assert rates[id(weight)] == pytest.approx(expected), name
