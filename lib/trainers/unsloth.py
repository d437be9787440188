"""Unsloth's kernels, where SMELT_UNSLOTH=1 asks for them and the device is an NVIDIA GPU.

Unsloth (https://docs.unsloth.ai) replaces the forward passes of transformers' models by its own, which take less memory
and time and compute the same. It is machine-local: base, adapters and their first values are those of a run without it,
and so are checkpoints. It wants versions of torch and transformers of its own, so it is no dependency of this
repository: who wants it installs it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from torch import nn

from lib.backends.backend import Backend
from lib.params.training import Finetune
from lib.pipeline.errors import SmeltError


def asked() -> bool:
    """Whether SMELT_UNSLOTH is 1.

    Raises:
        SmeltError: it is neither 0 nor 1.
    """
    given = os.environ.get("SMELT_UNSLOTH") or "0"
    if given not in ("0", "1"):
        raise SmeltError(f"SMELT_UNSLOTH is {given!r}; it must be 0, 1, or left out")
    return given == "1"


def installed() -> bool:
    return importlib.util.find_spec("unsloth") is not None


def import_first() -> None:
    """Import it before transformers and peft, whose modules it changes."""
    if os.environ.get("SMELT_UNSLOTH") == "1" and installed() and torch.cuda.is_available():
        import unsloth  # noqa: F401


def remake(model: nn.Module, base: Path, longest: int, settings: Finetune, seed: int, backend: Backend) -> nn.Module:
    """The peft model as Unsloth makes it, with the same adapters and their same first values.

    Args:
        model: the base in the folder `base` with adapters.
        longest: tokens of a row.

    Raises:
        SmeltError: there is no Unsloth, no NVIDIA GPU, or no such thing as this model in it.
    """
    reasons = {
        f"the device is {backend.name}; it needs cuda": backend.name != "cuda",
        "the package unsloth is not installed: pip install unsloth": not installed(),
        "finetune.method is full; it is used for LoRA and QLoRA": not hasattr(model, "peft_config"),
        "DoRA is not to be had with it": hasattr(model, "peft_config") and model.peft_config["default"].use_dora,
    }
    for reason, holds in reasons.items():
        if holds:
            raise SmeltError(f"SMELT_UNSLOTH is 1, but {reason}. Leave it unset to train without Unsloth")
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from unsloth import FastLanguageModel as Fast

    adapters, first = model.peft_config["default"], get_peft_model_state_dict(model)
    made, _ = Fast.from_pretrained(
        model_name=str(base),
        max_seq_length=longest,
        dtype=torch.bfloat16 if backend.bf16 else torch.float16,
        load_in_4bit=getattr(model, "is_loaded_in_4bit", False),
    )
    made = Fast.get_peft_model(
        made,
        r=adapters.r,
        target_modules=sorted(adapters.target_modules),
        lora_alpha=adapters.lora_alpha,
        lora_dropout=adapters.lora_dropout,
        bias="none",
        use_rslora=adapters.use_rslora,
        use_gradient_checkpointing="unsloth" if settings.activation_checkpointing else False,
        max_seq_length=longest,
        random_state=seed,
    )
    set_peft_model_state_dict(made, first)
    return made
