"""The importance matrix against transformers' own activations, and what it is for."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM

from lib.export import gguf, importance, llama
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError
from tests.export.conftest import VOCAB_SIZE

ROWS = torch.randint(4, VOCAB_SIZE, (3, 60), generator=torch.Generator().manual_seed(3)).tolist()
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(make_model: Callable, lineage: Lineage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf.export(make_model("qwen3"), tmp_path_factory.mktemp("i"), "tiny", "F16", [], [], lineage, 1)["F16"]


def test_it_is_the_mean_square_of_what_each_column_is_multiplied_with(plain: Path, make_model: Callable) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model("qwen3"))
    seen: dict[str, list[torch.Tensor]] = {}
    for layer, block in enumerate(model.model.layers):
        for ours, theirs in NAMES.items():
            name = f"blk.{layer}.{theirs}.weight"
            block.get_submodule(ours).register_forward_hook(
                lambda module, inputs, output, name=name: seen.setdefault(name, []).append(inputs[0][0])
            )
    with torch.no_grad():
        for row in ROWS:
            model(torch.tensor([row]))
    found = importance.measure(plain, ROWS, 1)
    assert found.keys() == seen.keys()  # the head's is left out, as llama.cpp's own program does
    for name, inputs in seen.items():
        expected = torch.cat(inputs).square().mean(0).numpy()
        np.testing.assert_allclose(found[name], expected, rtol=0.02, atol=1e-3 * expected.max(), err_msg=name)


def test_rounding_errs_less_where_it_matters(
    make_model: Callable, plain: Path, lineage: Lineage, tmp_path: Path
) -> None:
    columns = importance.measure(plain, ROWS, 1)
    full = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(plain).tensors}

    def error(folder: Path, rows: list[list[int]]) -> float:
        path = gguf.export(make_model("qwen3"), folder, "tiny", "F16", ["Q4_0"], rows, lineage, 1)["Q4_0"]
        tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        off = {name: dequantize(tensors[name].data, tensors[name].tensor_type) - full[name] for name in columns}
        return sum(float((columns[name] * np.square(values)).sum()) for name, values in off.items())

    assert error(tmp_path / "weighed", ROWS) < 0.97 * error(tmp_path / "equal", [])


def test_without_text_nothing_is_weighed(plain: Path) -> None:
    assert importance.measure(plain, [], 1) == {}


def test_another_layout_of_ggmls_tensors_is_noticed(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later llama-cpp-python might have one: what would be read then are not the activations."""
    shifted = type("Shifted", (ctypes.Structure,), {"_fields_": [("more", ctypes.c_int64), *llama._Tensor._fields_]})
    monkeypatch.setattr(llama, "_Tensor", shifted)
    with pytest.raises(SmeltError, match="cannot be looked at"):
        importance.measure(plain, ROWS, 1)
