"""Fine-tuning in MLX: our decoder with the weights of a Llama or Qwen3 of transformers, and peft's adapters beside it.

The names of what is trained are peft's, so that checkpoints are those of the run in torch, and in the end the weights
are put into the peft model, which writes the adapter and is merged as ever. mlx-lm would train more architectures, but
with adapters and checkpoints of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx import nn
from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedModel

from lib.backends.backend import Backend
from lib.model.config import ModelConfig
from lib.model.huggingface import from_hf_config
from lib.model.mlx_decoder import AdaptedLinear, Decoder, set_weights
from lib.params.training import Finetune
from lib.pipeline.errors import SmeltError
from lib.trainers.mlx_engine import MlxEngine, dtype_of
from lib.trainers.mlx_optimizers import Rule

ELSEWHERE = "Leave SMELT_DEVICE unset: torch trains it"


class Adapted(nn.Module):
    """A decoder under the names that peft gives to what it wraps."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.base_model = {"model": decoder}

    def __call__(self, tokens_BT: mx.array) -> mx.array:
        return self.base_model["model"](tokens_BT)

    def loss_sum(self, inputs_BT: mx.array, labels_BT: mx.array, **where: mx.array) -> mx.array:
        return self.base_model["model"].loss_sum(inputs_BT, labels_BT, **where)


def for_finetuning(
    backend: Backend, model: PeftModel | PreTrainedModel, settings: Finetune, say: Callable[[str], None]
) -> MlxEngine:
    """An engine for the weights of `model` that want gradients; when it has finished, they are in `model`.

    Raises:
        SmeltError: a base, a kind of adapter, an optimizer or a precision that is not to be had in MLX.
    """
    if settings.optimizer not in ("muon", "adamw"):
        raise SmeltError(f"finetune.optimizer is {settings.optimizer}; with SMELT_DEVICE=mlx there are muon and adamw")
    dtype = dtype_of(backend, settings)
    made: nn.Module = Decoder(decoder_config(model.config), dtype, settings.activation_checkpointing)
    if isinstance(model, PeftModel):
        made = Adapted(made)
        _adapt(made, model)
    named = {name.replace(".base_layer.", "."): weight for name, weight in model.named_parameters()}
    set_weights(made, {name: weight.detach().float().cpu().numpy() for name, weight in named.items()})
    trained = {name: weight for name, weight in named.items() if weight.requires_grad}
    if dtype != mx.float32:
        _hold_frozen(made, dtype)
    rules = {
        name: Rule(settings.optimizer == "muon", settings.learning_rate, settings.weight_decay * (weight.ndim > 1))
        for name, weight in trained.items()
    }

    @torch.no_grad()
    def put_back(weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            trained[name].copy_(torch.from_numpy(value))

    return MlxEngine(backend, made, rules, settings, say, put_back)


def decoder_config(given: PretrainedConfig) -> ModelConfig:
    """The shape of a transformers model that our decoder is.

    Raises:
        SmeltError: it does something that our decoder does not.
    """
    values: dict[str, Any] = given.to_dict()
    config = from_hf_config(values)
    rope = values["rope_parameters"]
    differs = [
        name
        for name, same in {
            "rope_parameters": rope.get("rope_type", "default") == "default",
            "attention_bias": not values.get("attention_bias"),
            "mlp_bias": not values.get("mlp_bias"),
            "hidden_act": values["hidden_act"] == "silu",
            "head_dim": (values.get("head_dim") or config.head_size) == config.head_size,
            "sliding_window": not (values.get("use_sliding_window") and values.get("sliding_window")),
        }.items()
        if not same
    ]
    if differs:
        raise SmeltError(
            f"the base is a {values['model_type']} that MLX is not written for here: its config.json differs in "
            f"{', '.join(differs)}. {ELSEWHERE}"
        )
    return config


def _adapt(made: Adapted, model: PeftModel) -> None:
    """Put adapters beside the layers that have one in `model`."""
    settings = model.peft_config["default"]
    asked = {
        "finetune.dropout": settings.lora_dropout > 0,
        "DoRA": settings.use_dora,
        "4 bits (QLoRA)": getattr(model, "is_loaded_in_4bit", False),
    }
    if missing := [name for name, given in asked.items() if given]:
        raise SmeltError(f"there is no {' and no '.join(missing)} with SMELT_DEVICE=mlx. {ELSEWHERE}")
    decoder = made.base_model["model"]
    layers = dict(decoder.named_modules())
    for name, layer in model.get_base_model().named_modules():
        if hasattr(layer, "lora_A"):
            parent, _, own = name.rpartition(".")
            adapted = AdaptedLinear(layers[name], settings.r, layer.scaling["default"])
            setattr(layers[parent] if parent else decoder, own, adapted)


def _hold_frozen(made: nn.Module, dtype: mx.Dtype) -> None:
    """Round frozen matrices once, which each product would round again."""
    for layer in made.modules():
        if isinstance(layer, AdaptedLinear):
            layer.weight = layer.weight.astype(dtype)
