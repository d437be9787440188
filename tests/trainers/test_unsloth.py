"""As much of Unsloth as a processor can test: when it is refused, and what it is called with.

The stand-in keeps the signatures of its documentation and makes the models by peft.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from lib.pipeline.errors import SmeltError
from lib.trainers import unsloth
from tests.trainers.test_finetuning import adapted, settings
from tests.trainers.test_loop import CPU

CUDA = SimpleNamespace(name="cuda", bf16=True)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What its two functions were called with."""
    calls: dict[str, dict[str, Any]] = {}

    def from_pretrained(
        model_name: str, max_seq_length: int, dtype: torch.dtype, load_in_4bit: bool
    ) -> tuple[torch.nn.Module, None]:
        calls["from_pretrained"] = locals() | {"calls": None}
        return AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32), None

    def make(
        model: torch.nn.Module, r: int, target_modules: list[str], lora_alpha: int, lora_dropout: float, bias: str,
        use_rslora: bool, use_gradient_checkpointing: bool | str, max_seq_length: int, random_state: int,
    ) -> PeftModel:  # fmt: skip
        calls["get_peft_model"] = {"checkpointing": use_gradient_checkpointing, "length": max_seq_length}
        torch.manual_seed(random_state + 1)  # it draws elsewhere, and so differently
        return get_peft_model(
            model,
            LoraConfig(
                r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=target_modules, bias=bias,
                use_rslora=use_rslora, task_type="CAUSAL_LM",
            ),
        )  # fmt: skip

    module = ModuleType("unsloth")
    module.FastLanguageModel = SimpleNamespace(from_pretrained=from_pretrained, get_peft_model=make)
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setattr(unsloth, "installed", lambda: True)
    return calls


def test_the_model_is_the_same_with_the_same_first_values(tmp_path: Path, stand_in: dict[str, dict[str, Any]]) -> None:
    model = adapted()
    fresh = adapted()
    fresh.unload().save_pretrained(tmp_path)
    made = unsloth.remake(model, tmp_path, 128, settings(activation_checkpointing=True), 1, CUDA)
    tokens = torch.arange(9)[None]
    assert torch.equal(made(input_ids=tokens).logits, model(input_ids=tokens).logits)
    assert {name for name, weight in made.named_parameters() if weight.requires_grad} == {
        name for name, weight in model.named_parameters() if weight.requires_grad
    }
    assert stand_in["from_pretrained"]["dtype"] == torch.bfloat16
    assert stand_in["from_pretrained"]["load_in_4bit"] is False
    assert stand_in["get_peft_model"] == {"checkpointing": "unsloth", "length": 128}


def test_without_it_there_is_one_message(tmp_path: Path, stand_in: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmeltError, match=r"the device is cpu; it needs cuda\. Leave it unset"):
        unsloth.remake(adapted(), tmp_path, 8, settings(), 1, CPU)
    with pytest.raises(SmeltError, match=r"method is full"):
        unsloth.remake(adapted().unload(), tmp_path, 8, settings(), 1, CUDA)
    monkeypatch.setattr(unsloth, "installed", lambda: False)
    with pytest.raises(SmeltError, match="SMELT_UNSLOTH is 1, but the package unsloth is not installed"):
        unsloth.remake(adapted(), tmp_path, 8, settings(), 1, CUDA)


@pytest.mark.parametrize(("given", "expected"), [("", False), ("0", False), ("1", True)])
def test_it_is_used_where_it_is_asked_for(given: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_UNSLOTH", given)
    assert unsloth.asked() == expected
    monkeypatch.setenv("SMELT_UNSLOTH", "yes")
    with pytest.raises(SmeltError, match="SMELT_UNSLOTH is 'yes'; it must be 0, 1, or left out"):
        unsloth.asked()
