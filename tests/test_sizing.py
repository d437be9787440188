"""Sizes and machines of presets/: each pair is valid, and the numbers in the comments are those of the arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib import sizing
from lib.backends.precision import fits_fp8
from lib.model.config import ModelConfig, derive
from lib.model.decoder import Decoder
from lib.params.load import read_yaml
from tests.workspace import ROOT


@pytest.mark.parametrize("size", sizing.SIZES)
def test_comments_say_what_the_arithmetic_gives(size: str) -> None:
    text = (ROOT / "presets" / f"{size}.yaml").read_text()
    assert text.count(sizing.MARK) == 1
    assert text == sizing.commented(ROOT, size), "run python -m lib.sizing"


@pytest.mark.parametrize("size", sizing.SIZES)
def test_sizes_follow_the_laws(size: str) -> None:
    params = sizing.with_presets(ROOT, size)
    config, settings = derive(params.model, params.tokenizer.vocab_size), params.pretrain
    total = settings.tokens / (1 - params.decay.fraction)
    assert total == pytest.approx(sizing.horizon(config), rel=0.01)
    assert params.mix.tokens == pytest.approx(total, rel=0.01)
    assert settings.batch_tokens == sizing.batch_tokens(config)
    assert settings.tokens % settings.batch_tokens == 0
    assert settings.batch_tokens % config.context_length == 0
    named = {"30m": 30e6, "125m": 125e6, "350m": 350e6, "1b": 1e9, "3b": 3e9}[size]
    assert config.parameters == pytest.approx(named, rel=0.15)
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.parameters
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    assert all(fits_fp8(model.get_submodule(name), name) for name in linear)


def test_3b_is_the_plans_model() -> None:
    config = derive(sizing.with_presets(ROOT, "3b").model, 131072)
    shape = (config.layers, config.width, config.heads, config.kv_heads, config.feed_forward, config.context_length)
    assert shape == (28, 3072, 24, 8, 8192, 8192)


def test_cpu_is_the_default() -> None:
    assert sizing.with_presets(ROOT, "cpu") == sizing.with_presets(ROOT)
    assert sizing.with_presets(ROOT, "3b", "h100", "cpu") == sizing.with_presets(ROOT)


def test_activations_are_what_the_decoder_keeps() -> None:
    """The formula against what autograd keeps for a block in bf16, weights and inputs of the model aside."""
    config = ModelConfig(64, 128, 4, 256, 4, 2, 768, 1e4, 1e-6, True, False)
    kept: dict[int, int] = {}
    model = Decoder(config)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[:1] == (1,):  # the batch's row: no copy of a weight
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.model(torch.zeros(1, 128, dtype=torch.long), model.make_mask(None)).sum()
    assert sum(kept.values()) == pytest.approx(sizing.activation_bytes(config, checkpointed=False), rel=0.1)


def test_every_preset_of_a_machine_is_known() -> None:
    for name in sizing.MACHINES:
        assert set(read_yaml(ROOT / "presets" / f"{name}.yaml")) == {"pretrain", "finetune"}
