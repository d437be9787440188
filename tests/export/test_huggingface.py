"""The Hugging Face export, read back by transformers and by the safetensors package."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.export import huggingface
from lib.export.lineage import Lineage, read
from tests.export.conftest import MODELS, VOCAB_SIZE


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_loads_the_same_model(kind: str, make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    source, folder = make_model(kind), tmp_path / "hf"
    huggingface.export(source, folder, "float32", lineage)
    ids = torch.randint(4, VOCAB_SIZE, (2, 40), generator=torch.Generator().manual_seed(0))
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert type(model).__name__ == f"{kind.removesuffix('_tied').capitalize()}ForCausalLM"
    with torch.no_grad():
        assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(source)(ids).logits)
    assert model.generation_config.eos_token_id == [0, 2]
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(folder).chat_template
    assert read(folder / "model.safetensors") == lineage


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_is_that_of_torch(dtype: str, make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    huggingface.export(make_model("qwen3"), tmp_path / "hf", dtype, lineage)
    expected = load_file(make_model("qwen3") / "model.safetensors")
    weights = load_file(tmp_path / "hf/model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name].to(getattr(torch, dtype))), name
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto").dtype == getattr(torch, dtype)
    # and a checkpoint in that type is read back without loss
    for file in make_model("qwen3").glob("*token*"):
        (tmp_path / "hf" / file.name).write_bytes(file.read_bytes())
    huggingface.export(tmp_path / "hf", tmp_path / "again", "float32", lineage)
    for name, weight in load_file(tmp_path / "again/model.safetensors").items():
        assert torch.equal(weight, weights[name].float()), name


def test_equal_inputs_give_equal_bytes(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    """safetensors itself shuffles its metadata; eight writes would show it."""
    contents = set()
    for number in range(8):
        huggingface.export(make_model("qwen3"), tmp_path / str(number), "bfloat16", lineage)
        contents.add(tuple(file.read_bytes() for file in sorted((tmp_path / str(number)).iterdir())))
    assert len(contents) == 1
    with safe_open(tmp_path / "0/model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"


def test_lm_eval_scores_it_without_a_flag(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    huggingface.export(make_model("qwen3"), tmp_path / "hf", "float32", lineage)
    context, continuation = "How do I", " list the arguments?"
    scorer = HFLM(pretrained=str(tmp_path / "hf"), device="cpu", batch_size=1)
    ((found, _),) = scorer.loglikelihood([Instance("loglikelihood", {}, (context, continuation), 0)])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    before, whole = (tokenizer(text)["input_ids"] for text in (context, context + continuation))
    with torch.no_grad():
        scores = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")(torch.tensor([whole])).logits[0].log_softmax(-1)
    expected = sum(scores[at - 1, whole[at]].item() for at in range(len(before), len(whole)))
    assert found == pytest.approx(expected, abs=1e-3)
