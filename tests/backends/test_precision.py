"""Which precision is taken, and what fp8 makes of a model. torch multiplies 8-bit matrices on a processor too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lib.backends.cpu import Cpu
from lib.backends.precision import apply_precision, choose_precision, convert_to_fp8
from lib.pipeline.errors import SmeltError


class Fp8Cpu(Cpu):
    """A processor that says that it is quick in fp8."""

    def __init__(self) -> None:
        super().__init__(bf16=True)
        self.precisions = (*self.precisions, "fp8")


class Model(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(50, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 128, bias=False), nn.SiLU(), nn.Linear(128, width, bias=False))
            for _ in range(2)
        )
        self.narrow = nn.Linear(width, 24, bias=False)
        self.lm_head = nn.Linear(width, 64, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = x + layer(x)
        return self.lm_head(x)


def test_auto_is_bf16_where_that_is_quick() -> None:
    assert choose_precision("auto", Cpu(bf16=True)) == "bf16"
    assert choose_precision("auto", Cpu(bf16=False)) == "fp32"
    assert choose_precision("auto", Fp8Cpu()) == "bf16"  # fp8 is for those who ask for it
    assert choose_precision("bf16", Cpu(bf16=False)) == "bf16"
    assert choose_precision("fp32", Cpu(bf16=True)) == "fp32"


def test_fp8_is_refused_where_there_is_none() -> None:
    with pytest.raises(SmeltError, match=r"precision is fp8, and .*cpu.* has no 8-bit products.*Set it to auto"):
        apply_precision(Model(), Cpu(bf16=True), "fp8")


def test_a_model_without_a_layer_that_fits_is_refused() -> None:
    with pytest.raises(SmeltError, match="no layer of this model has sides that are multiples of 16"):
        apply_precision(Model(width=40), Fp8Cpu(), "fp8")


def test_fp8_converts_the_linear_layers_of_the_blocks_on_the_same_weights() -> None:
    model = Model()
    before = dict(model.named_parameters())
    precision = apply_precision(model, Fp8Cpu(), "fp8")
    assert (precision.name, precision.autocast) == ("fp8", torch.bfloat16)
    converted = {name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"}
    assert converted == {f"layers.{layer}.{place}" for layer in (0, 1) for place in (0, 2)}
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] and after[name].dtype == torch.float32 for name in before)


def test_fp8_gradients_point_where_those_of_fp32_do() -> None:
    exact = Model()
    rounded = copy.deepcopy(exact)
    assert len(convert_to_fp8(rounded)) == 4
    tokens = torch.randint(0, 50, (8, 16))
    gradients = []
    for model in (exact, rounded):
        with torch.autocast("cpu", torch.bfloat16, enabled=model is rounded):
            logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.grad is not None})
    for name, gradient in gradients[0].items():
        cosine = nn.functional.cosine_similarity(gradient.flatten(), gradients[1][name].flatten(), dim=0)
        assert 0.97 < cosine < 0.99999 if "layers" in name else cosine > 0.97, (name, cosine)


@pytest.mark.parametrize(("asked", "autocast"), [("fp32", None), ("bf16", torch.bfloat16)])
def test_other_precisions_leave_the_model_alone(asked: str, autocast: torch.dtype | None) -> None:
    model = Model()
    kinds = [type(module) for module in model.modules()]
    assert apply_precision(model, Cpu(bf16=True), asked).autocast == autocast
    assert [type(module) for module in model.modules()] == kinds
