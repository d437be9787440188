"""The methods on a small Llama: all of them learn, and what is merged is what was trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib.pipeline.errors import SmeltError
from lib.trainers import adapters, bases, lora
from lib.trainers.libraries import PeftModel
from lib.trainers.objectives import Chat
from lib.trainers.optimizers import for_finetuning, set_rates
from tests.trainers import foreign
from tests.trainers.test_loop import CPU, SETTINGS

CPU_DEVICE = torch.device("cpu")


def settings(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"rank": 4, "alpha": 8, "dropout": 0.0, "dora": False, "rslora": False, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.write(tmp_path_factory.mktemp("base") / "it", hidden_size=64)


def learn(model: nn.Module, steps: int = 40, optimizer: str = "adamw", rate: float = 0.01) -> list[float]:
    """Losses on four rows, seen again and again, with a validation in the middle."""
    changes = {"optimizer": optimizer, "learning_rate": rate, "weight_decay": 0.0}
    optimizers = for_finetuning(model, SETTINGS.model_copy(update=changes), CPU)
    objective, losses = Chat(model), []
    tokens = torch.randint(0, 300, (4, 12), generator=torch.Generator().manual_seed(0))
    arguments = (tokens[:, :-1], tokens[:, 1:], torch.zeros(4, 11))
    for step in range(steps):
        if step == 5:
            objective.eval()
            with torch.no_grad():
                objective(*arguments)
            objective.train()
        set_rates(optimizers, 1.0)
        loss = objective(*arguments) / 44
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("changes", [{}, {"dora": True}, {"rslora": True}, {"dora": True, "rslora": True}])
def test_adapters_learn_and_are_merged(changes: dict[str, bool], base: Path) -> None:
    model = lora.add_adapter(bases.load(base), settings(**changes), seed=1)
    assert any("magnitude" in name for name, _ in model.named_parameters()) == changes.get("dora", False)
    losses = learn(model)
    assert losses[-1] < 0.85 * losses[0]
    tokens = torch.randint(0, 300, (2, 16))
    model.eval()
    with torch.no_grad():
        beside = model(input_ids=tokens).logits
        merged = lora.merge(model, tokens)(input_ids=tokens).logits
        untrained = bases.load(base)(input_ids=tokens).logits
    torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-5)
    assert (merged - untrained).abs().max() > 0.1


def test_rslora_and_lora_differ_by_the_scale_of_the_rank(base: Path) -> None:
    scales = [
        lora.add_adapter(bases.load(base), settings(rslora=on), seed=1).get_submodule(
            "base_model.model.model.layers.0.mlp.up_proj"
        ).scaling["default"]
        for on in (False, True)
    ]  # fmt: skip
    assert scales == [8 / 4, 8 / 4**0.5]


@pytest.mark.parametrize("dora", [False, True])
def test_qlora_learns_beside_a_base_in_four_bits(dora: bool, base: Path, tmp_path: Path) -> None:
    model = bases.load(base)
    whole = sum(weight.nbytes for name, weight in model.named_parameters() if "proj" in name)
    exact = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    lora.quantise(model, CPU_DEVICE, torch.float32)
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.quant_state.nested  # double quantisation
    assert layer.weight.quant_state.quant_type == "nf4"
    held = sum(weight.nbytes for name, weight in model.named_parameters() if "proj" in name)
    assert held == whole / 8

    model = lora.add_adapter(model, settings(dora=dora), seed=1)
    losses = learn(model)
    assert losses[-1] < 0.85 * losses[0]

    # What it wrote belongs to the base as it was: merged there, exactly.
    adapters.save(model, base, "models/base", tmp_path / "adapter")
    opened = adapters.open_adapters(base, {"default": tmp_path / "adapter"})
    tokens = torch.randint(0, 300, (2, 16))
    merged = lora.merge(opened, tokens)
    moved = {name for name, weight in merged.named_parameters() if not torch.equal(weight, exact[name])}
    assert moved == {name for name in exact if "proj" in name}
    # and the two differ by no more than four bits explain
    with torch.no_grad():
        ours, theirs = merged(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.95


def test_gradients_pass_through_four_bits_after_a_validation(base: Path) -> None:
    """bitsandbytes packs weights for inference when asked without gradient; the first layers would learn no more."""
    model = bases.load(base)
    lora.quantise(model, CPU_DEVICE, torch.float32)
    model = lora.add_adapter(model, settings(), seed=1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.05)
    tokens = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    gradients = []
    for _ in range(2):
        model.train()
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append({name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None})
        model.eval()
        with torch.no_grad():
            model(input_ids=tokens)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert gradients[1]["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"].abs().max() > 0


@pytest.mark.parametrize("four_bits", [False, True])
def test_what_layers_give_under_autocast_has_its_type(base: Path, four_bits: bool) -> None:
    """So that the backward pass of either holds as much."""
    model = bases.load(base)
    if four_bits:
        lora.quantise(model, CPU_DEVICE, torch.bfloat16)
    layer = lora.add_adapter(model, settings(), seed=1).get_base_model().model.layers[0].mlp.gate_proj
    given = torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(given)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert given.grad.dtype == torch.float32


def test_logits_that_differ_are_an_error() -> None:
    logits = torch.randn(2, 5, 9) * 10
    lora.check_equal(logits, logits + 1e-4)
    for wrong in (logits + 0.5, logits * float("nan")):
        with pytest.raises(SmeltError, match="merged into the base gives other logits than beside it"):
            lora.check_equal(logits, wrong)


def test_full_fine_tuning_moves_all_weights(base: Path) -> None:
    model = bases.load(base)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    losses = learn(model, rate=0.003)
    assert losses[-1] < 0.85 * losses[0]
    assert {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])} == set()
    assert not isinstance(model, PeftModel)
