"""Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) through peft."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import torch

# peft imports torchao and bitsandbytes, which list what this build of torch lacks. bitsandbytes would fetch compiled
# code from a hub where the package `kernels` is installed: nothing that is loaded here may bring code.
sys.modules.setdefault("kernels", None)
for noisy in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

from lib.trainers import unsloth  # noqa: E402

unsloth.import_first()

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedModel  # noqa: E402

from lib.params.training import Finetune  # noqa: E402


def load_base(folder: Path) -> PreTrainedModel:
    """The Hugging Face model in `folder`, in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def add_adapter(model: PreTrainedModel, settings: Finetune, seed: int) -> PeftModel:
    """Adapters on every linear layer, the output head included.

    Pretraining never shows the markers of a conversation, so the head has to learn to end a turn. A head that is tied
    to the embedding is left alone: an adapter on one would untie them.
    """
    torch.manual_seed(seed)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    if not model.config.tie_word_embeddings:
        names.append("lm_head")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Write the adapter alone; `base` is the path of its base model from the repository's root."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # peft writes the path of the machine, and a set in the order of its hashes: equal runs would give other bytes.
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge(base: Path, adapter: Path) -> PreTrainedModel:
    """The base model of the folder `base` with the adapter added into its weights."""
    return PeftModel.from_pretrained(load_base(base), adapter).merge_and_unload()
