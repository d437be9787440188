"""Fine-tuning's objective and optimizers on a peft model, against transformers' own forward pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen3Config

from lib.backends.precision import Precision
from lib.params.load import read_yaml
from lib.params.training import Finetune
from lib.trainers.engine import TorchEngine
from lib.trainers.loader import IGNORED, Conversations
from lib.trainers.lora import add_adapter
from lib.trainers.objectives import Chat, positions
from lib.trainers.optimizers import for_finetuning, set_rates
from tests.trainers.test_loop import CPU, SETTINGS
from tests.workspace import ROOT


def adapted(kind: type = Qwen3Config, tied: bool = False, dropout: float = 0.0, fresh: bool = False) -> PeftModel:
    """A small model of transformers with adapters, of which none is zero unless they are `fresh`."""
    torch.manual_seed(0)
    config = kind(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=48, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    asked = SimpleNamespace(rank=4, alpha=8, dropout=dropout, dora=False, rslora=False)
    model = add_adapter(AutoModelForCausalLM.from_config(config), asked, seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name and not fresh:
                weight.normal_(std=0.1)
    return model


def settings(**changes: Any) -> Finetune:
    return Finetune.model_validate({**read_yaml(ROOT / "params.yaml")["finetune"], **changes})


@pytest.fixture
def model() -> PeftModel:
    return adapted()


def test_the_loss_is_that_of_the_whole_model_with_its_adapters(model: PeftModel) -> None:
    tokens, labels = torch.randint(0, 64, (2, 3, 10))
    labels[torch.rand(3, 10) < 0.6] = IGNORED
    expected = F.cross_entropy(model(input_ids=tokens).logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(Chat(model)(tokens, labels, torch.zeros_like(tokens)), expected)


def test_packed_conversations_do_not_see_each_other(model: PeftModel) -> None:
    chance = np.random.default_rng(1)
    encoded = [
        (chance.integers(0, 64, length).tolist(), (chance.random(length) < 0.5).tolist())
        for length in (20, 11, 8, 5, 3, 3)
    ]
    objective = Chat(model)

    def loss(*indices: int) -> float:
        return objective(*map(torch.from_numpy, Conversations(encoded, 0).rows(np.array(indices)))).item()

    apart = sum(loss(index) for index in range(6))
    assert len(Conversations(encoded, 0).rows(np.arange(6)).inputs) == 3
    assert loss(*range(6)) == pytest.approx(apart, rel=1e-5)
    # Another neighbour: what the others lose stays the same.
    before = loss(*range(6)) - loss(1)
    encoded[1] = (encoded[1][0][::-1], encoded[1][1])
    assert loss(*range(6)) - loss(1) == pytest.approx(before, rel=1e-5)


def test_positions_begin_again_with_each_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 2, 2, 2, 3]], dtype=torch.int32)
    assert positions(documents).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 0]]


@pytest.mark.parametrize(("optimizer", "rate"), [("muon", 0.05), ("adamw", 0.02), ("adamw_8bit", 0.02)])
def test_only_the_adapters_learn(optimizer: str, rate: float) -> None:
    model = adapted(fresh=True)
    settings = SETTINGS.model_copy(update={"optimizer": optimizer, "learning_rate": rate, "weight_decay": 0.0})
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = for_finetuning(model, settings, CPU)
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


def test_the_next_token_of_a_peft_model_is_its_likeliest(model: PeftModel) -> None:
    objective = Chat(model)
    optimizers = for_finetuning(model, SETTINGS, CPU)
    engine = TorchEngine(CPU, objective, optimizers, 1, Precision("fp32", None), compiles=False, say=print)
    tokens = np.arange(14).reshape(2, 7)
    expected = model(input_ids=torch.from_numpy(tokens)).logits[:, -1].argmax(dim=-1)
    assert engine.next_tokens(tokens).tolist() == expected.tolist()
