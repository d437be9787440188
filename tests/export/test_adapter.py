"""The adapter alone, beside its base, in peft and in llama.cpp."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from lib.export import adapter, gguf
from lib.export.lineage import Lineage, read
from lib.export.llama import Reader
from lib.pipeline.errors import SmeltError
from lib.trainers import adapters
from tests.export.conftest import VOCAB_SIZE
from tests.export.test_gguf import LARGEST, MEAN_SQUARE

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.randint(4, VOCAB_SIZE, (1, 96), generator=torch.Generator().manual_seed(5))


def tuned(base: Path, folder: Path, head: bool, **options: object) -> PeftModel:
    """An adapter with weights that matter, exact in float16, saved as finetune does."""
    model = AutoModelForCausalLM.from_pretrained(base)
    targets = [*PROJECTIONS, *(["lm_head"] if head else [])]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM", **options)
    torch.manual_seed(0)
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                weight.normal_(0, 0.5 * weight.shape[1] ** -0.5 if "lora_A" in name else 0.1)
                weight.copy_(weight.half().float())
    adapters.save(model, base, str(base), folder)
    return model.eval()


@pytest.mark.parametrize(("kind", "options"), [("qwen3", {}), ("llama_tied", {}), ("qwen3_tied", {"use_rslora": True})])
def test_llama_cpp_and_transformers_agree_on_base_and_adapter(
    kind: str, options: dict, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    base = make_model(kind)
    model = tuned(base, tmp_path / "adapter", not kind.endswith("_tied"), **options)
    with torch.no_grad():
        expected = model(IDS).logits[0].numpy()
        with model.disable_adapter():
            without = model(IDS).logits[0].numpy()
    assert np.abs(expected - without).max() > 1
    gguf.write(base, base, tmp_path / "base.gguf", "base", "F16", lineage)
    adapter.write_gguf(tmp_path / "adapter", base, tmp_path / "lora.gguf", "lora", lineage)
    for beside, logits in ((tmp_path / "lora.gguf", expected), (None, without)):
        with Reader(tmp_path / "base.gguf", 256, 1, beside) as reader:
            difference = reader.read(IDS[0].tolist(), every=True) - logits
        assert np.abs(difference).max() < LARGEST * max(1, logits.std() / 5)
        assert np.square(difference).mean() < MEAN_SQUARE * max(1, logits.var() / 25)
    assert read(tmp_path / "lora.gguf") == lineage


def test_peft_opens_the_export_as_it_is(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    base = make_model("qwen3")
    model = tuned(base, tmp_path / "adapter", head=True)
    adapter.export(tmp_path / "adapter", base, tmp_path / "out", lineage)
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(opened(IDS).logits, model(IDS).logits)
    assert read(tmp_path / "out" / adapter.WEIGHTS) == lineage
    with safe_open(tmp_path / "out" / adapter.WEIGHTS, framework="pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (base / file).read_bytes()


def test_what_llama_cpp_cannot_lay_beside_a_base_is_refused(
    make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    base = make_model("qwen3")
    tuned(base, tmp_path / "dora", head=False, use_dora=True)
    assert "DoRA" in adapter.why_not(tmp_path / "dora")
    with pytest.raises(SmeltError, match="DoRA"):
        adapter.write_gguf(tmp_path / "dora", base, tmp_path / "dora.gguf", "tiny", lineage)

    tuned(base, tmp_path / "adapter", head=True)
    adapter.write_gguf(tmp_path / "adapter", base, tmp_path / "lora.gguf", "tiny", lineage)
    other = gguf.export(make_model("llama_tied"), tmp_path / "o", "other", "F16", [], [], lineage, 1)["F16"]
    with pytest.raises(SmeltError, match="of another base"):
        Reader(other, 64, 1, tmp_path / "lora.gguf")
