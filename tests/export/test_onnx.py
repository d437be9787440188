"""The ONNX file in onnxruntime, beside transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx as reader
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from lib.export import onnx
from lib.export.lineage import Lineage, read
from lib.export.runtimes import OnnxRuntime
from lib.pipeline.errors import SmeltError
from tests.export.conftest import VOCAB_SIZE

KINDS = ("qwen3", "llama_tied", "qwen2")
CLOSE = 2e-4  # fp32 on both sides, in other orders, of logits with a standard deviation of 5


@pytest.fixture(scope="module")
def exports(
    make_model: Callable, lineage: Lineage, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Path]]:
    made: dict[str, dict[str, Path]] = {}

    def export(kind: str) -> dict[str, Path]:
        if kind not in made:
            made[kind] = onnx.export(make_model(kind), tmp_path_factory.mktemp("onnx") / "out", True, lineage)
        return made[kind]

    return export


@pytest.mark.parametrize("kind", KINDS)
def test_logits_with_a_cache_are_those_of_transformers(kind: str, make_model: Callable, exports: Callable) -> None:
    """Two rows, one of them padded before its beginning; read in three pieces."""
    model = AutoModelForCausalLM.from_pretrained(make_model(kind))
    ids = torch.randint(4, VOCAB_SIZE, (2, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    session = onnxruntime.InferenceSession(exports(kind)["fp32"])
    names = [entry.name for entry in session.get_inputs()][3:]
    shape = session.get_inputs()[3].shape
    past = {name: np.zeros((2, shape[1], 0, shape[3]), np.float32) for name in names}
    cache = DynamicCache(config=model.config)
    for start, end in ((0, 16), (16, 17), (17, 24)):
        with torch.no_grad():
            expected = model(
                ids[:, start:end], attention_mask=mask[:, :end], position_ids=positions[:, start:end],
                past_key_values=cache, use_cache=True,
            ).logits  # fmt: skip
        inputs = {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": positions[:, start:end],
        }
        logits, *present = session.run(None, {**{name: value.numpy() for name, value in inputs.items()}, **past})
        past = dict(zip(names, present, strict=True))
        seen = mask[:, start:end].bool()  # what padding says is nobody's business
        assert np.abs(logits - expected.numpy())[seen].max() < CLOSE
    assert expected.std() > 3


def test_greedy_text_is_identical(make_model: Callable, exports: Callable) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model("qwen3"))
    model.generation_config.eos_token_id = None  # else generate() keeps away from it for min_new_tokens
    prompts = torch.randint(4, VOCAB_SIZE, (4, 8), generator=torch.Generator().manual_seed(1))
    runtime = OnnxRuntime(exports("qwen3")["fp32"], 1)
    for prompt in prompts:
        expected = model.generate(prompt[None], max_new_tokens=64, do_sample=False)[0, 8:].tolist()
        tokens = [int(runtime.begin(prompt.tolist()).argmax())]
        while len(tokens) < 64:
            tokens.append(int(runtime.step(tokens[-1]).argmax()))
        assert tokens == expected


def test_8_bits_keep_the_model_in_half_the_bytes_or_less(exports: Callable) -> None:
    ids = torch.randint(4, VOCAB_SIZE, (128,), generator=torch.Generator().manual_seed(2)).tolist()
    paths = exports("qwen3")
    full, rounded = (OnnxRuntime(path, 1).logits(ids) for path in paths.values())
    assert paths["int8"].stat().st_size < 0.5 * paths["fp32"].stat().st_size
    assert 0.999 < np.corrcoef(full.ravel(), rounded.ravel())[0, 1] < 1 - 1e-9


def test_the_file_is_standard_onnx_with_its_lineage_and_nothing_of_this_machine(
    exports: Callable, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    paths = exports("qwen3")
    model = reader.load(paths["fp32"])
    reader.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert [entry.name for entry in model.graph.output][:3] == ["logits", "present.0.key", "present.0.value"]
    for path in paths.values():
        assert read(path) == lineage
        assert b".py" not in path.read_bytes()
    again = onnx.export(make_model("qwen3"), tmp_path / "again", True, lineage)
    for kind, path in paths.items():
        assert again[kind].read_bytes() == path.read_bytes(), kind


def test_damaged_files_are_named(exports: Callable, tmp_path: Path) -> None:
    content = exports("qwen3")["fp32"].read_bytes()
    for length in (0, 100, len(content) // 2):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        with pytest.raises(SmeltError, match=r"cut\.onnx is not a whole ONNX file"):
            read(tmp_path / "cut.onnx")
        with pytest.raises(SmeltError, match="onnxruntime cannot load"):
            OnnxRuntime(tmp_path / "cut.onnx", 1)
