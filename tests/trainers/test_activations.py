"""Activation checkpointing changes memory and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lib.model.decoder import Decoder
from lib.trainers.activations import checkpoint_activations
from tests.model.test_decoder import CONFIG, random_decoder


def gradients(model: nn.Module, tokens: Tensor) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, and the bytes that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits = model(tokens)
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return {name: weight.grad for name, weight in model.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_equal_and_less_is_kept(dropout: float) -> None:
    plain: Decoder = random_decoder(CONFIG).train()
    for layer in plain.model.layers:
        layer.mlp = nn.Sequential(layer.mlp, nn.Dropout(dropout))
    lean = copy.deepcopy(plain)
    names = list(lean.state_dict())
    assert checkpoint_activations(lean) == CONFIG.layers
    assert list(lean.state_dict()) == names
    tokens = torch.randint(0, CONFIG.vocab_size, (4, CONFIG.context_length))
    (expected, much), (found, little) = gradients(plain, tokens), gradients(lean, tokens)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert little < 0.5 * much


def test_compiled_blocks_can_be_checkpointed() -> None:
    plain = random_decoder(CONFIG).train()
    lean = copy.deepcopy(plain)
    checkpoint_activations(lean)
    tokens = torch.randint(0, CONFIG.vocab_size, (2, CONFIG.context_length))
    expected, _ = gradients(plain, tokens)
    # aot_eager: what compiling does to the graph, without a minute of C++.
    found, _ = gradients(torch.compile(lean, backend="aot_eager", fullgraph=True), tokens)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[f"_orig_mod.{name}"], gradient)
