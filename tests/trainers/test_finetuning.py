"""Fine-tuning's objective and optimizers on a peft model, against transformers' own forward pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import Qwen3Config, Qwen3ForCausalLM

from lib.trainers.loader import IGNORED
from lib.trainers.lora import add_adapter
from lib.trainers.objectives import Chat, cross_entropy_sum
from lib.trainers.optimizers import for_finetuning, set_rates


@pytest.fixture
def model() -> PeftModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=48, max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    adapter = SimpleNamespace(rank=4, alpha=8, dropout=0.0)
    return add_adapter(Qwen3ForCausalLM(config), adapter, seed=1)


def test_the_loss_is_that_of_the_whole_model_with_its_adapters(model: PeftModel) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)  # adapters start at zero: make them count
    tokens, labels = torch.randint(0, 64, (2, 3, 10))
    labels[torch.rand(3, 10) < 0.6] = IGNORED
    expected = cross_entropy_sum(model(input_ids=tokens).logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(Chat(model)(tokens, labels, torch.zeros_like(tokens)), expected)


@pytest.mark.parametrize(("optimizer", "rate"), [("muon", 0.05), ("adamw", 0.02)])
def test_only_the_adapters_learn(model: PeftModel, optimizer: str, rate: float) -> None:
    settings = SimpleNamespace(optimizer=optimizer, learning_rate=rate, weight_decay=0.0, betas=(0.9, 0.95))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = for_finetuning(model, settings)
    tokens = torch.randint(0, 64, (4, 12))
    losses = []
    for _ in range(20):
        set_rates(optimizers, 1.0)
        loss = Chat(model)(tokens[:, :-1], tokens[:, 1:], torch.zeros(4, 11)) / 44
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if "lora_" in name}
