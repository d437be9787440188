"""MLX directories in mlx-lm, beside transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mlx_lm import generate, load
from transformers import AutoModelForCausalLM

from lib.export import huggingface, mlx
from lib.export.lineage import Lineage, read
from lib.export.runtimes import Mlx
from lib.pipeline.errors import SmeltError
from tests.export.conftest import MODELS, VOCAB_SIZE
from tests.export.test_gguf import STRETCHED, copy, edit

IDS = torch.randint(4, VOCAB_SIZE, (1, 64), generator=torch.Generator().manual_seed(4))


def logits_of(folder: Path) -> np.ndarray:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits[0].numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_the_hugging_face_export_is_an_mlx_model_as_it_is(
    kind: str, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    huggingface.export(make_model(kind), tmp_path / "hf", "float32", lineage)
    runtime = Mlx(tmp_path / "hf")
    expected = logits_of(make_model(kind))
    assert np.abs(runtime.logits(IDS[0].tolist()) - expected).max() < 1e-3
    # In pieces, by the cache.
    assert np.abs(runtime.begin(IDS[0, :40].tolist()) - expected[39]).max() < 1e-3
    assert np.abs(runtime.step(int(IDS[0, 40])) - expected[40]).max() < 1e-3


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_positions_are_stretched_as_in_transformers(
    kind: str, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    model = copy(make_model("llama"), tmp_path)
    edit(model / "config.json", rope_parameters={"rope_theta": 50000.0, **STRETCHED[kind]})
    huggingface.export(model, tmp_path / "hf", "float32", lineage)
    expected = logits_of(model)
    assert np.abs(expected - logits_of(make_model("llama"))).max() > 0.5
    assert np.array_equal(logits_of(tmp_path / "hf"), expected)
    assert np.abs(Mlx(tmp_path / "hf").logits(IDS[0].tolist()) - expected).max() < 1e-3


@pytest.mark.parametrize("kind", ["qwen3", "llama_tied"])
def test_quantised_directories_keep_what_they_can(
    kind: str, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    paths = mlx.export(make_model(kind), tmp_path, "tiny", [8, 4], 64, "float16", lineage)
    expected = logits_of(make_model(kind))
    sizes, agreement = {}, {}
    for variant, path in paths.items():
        agreement[variant] = np.corrcoef(Mlx(path).logits(IDS[0].tolist()).ravel(), expected.ravel())[0, 1]
        sizes[variant] = (path / "model.safetensors").stat().st_size
        assert read(path / "model.safetensors") == lineage
    assert agreement["8bit"] > 0.999
    assert 0.95 < agreement["4bit"] < agreement["8bit"]
    assert sizes["4bit"] < 0.65 * sizes["8bit"]


def test_mlx_lm_answers_by_its_own_loader(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    path = mlx.export(make_model("qwen3"), tmp_path, "tiny", [8], 64, "float32", lineage)["8bit"]
    model, tokenizer = load(str(path))
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "How?"}], add_generation_prompt=True)
    said = generate(model, tokenizer, prompt=prompt, max_tokens=8)
    runtime = Mlx(path)
    tokens = [int(runtime.begin(prompt).argmax())]
    while len(tokens) < 8:
        tokens.append(int(runtime.step(tokens[-1]).argmax()))
    assert tokenizer.decode(tokens).startswith(said)
    assert said


def test_equal_inputs_give_equal_bytes(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    contents = set()
    for number in range(3):
        paths = mlx.export(make_model("qwen3"), tmp_path / str(number), "tiny", [4], 64, "bfloat16", lineage)
        contents.add(tuple((file.name, file.read_bytes()) for file in sorted(paths["4bit"].iterdir())))
    assert len(contents) == 1


def test_what_mlx_lm_does_not_know_is_named(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    edit(model / "config.json", model_type="strange")
    with pytest.raises(SmeltError, match=r"mlx-lm cannot load .*strange.* Set export.mlx to null"):
        mlx.export(model, tmp_path / "out", "tiny", [4], 64, "float16", lineage)
