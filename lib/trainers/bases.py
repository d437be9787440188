"""The model that fine-tuning begins with, whoever made it: a Hugging Face directory, or one GGUF file.

Nothing in the folder is run: safetensors, JSON and GGUF alone are read.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file, hash_value
from lib.trainers.libraries import AutoModelForCausalLM, PreTrainedModel, transformers_logging

OWN = "models/base"  # the one that is pretrained here


def gguf_file(folder: Path) -> dict[str, str]:
    """The argument by which transformers reads a GGUF file; none for a Hugging Face directory.

    Raises:
        SmeltError: the folder holds neither.
    """
    if (folder / "config.json").is_file():
        if any(folder.glob("*.safetensors")):
            return {}
        what = "has config.json and no .safetensors file (weights in pickle files are not read: they could run code)"
    else:
        files = sorted(folder.glob("*.gguf"))
        if len(files) == 1:
            return {"gguf_file": files[0].name}
        what = f"has no config.json, and {len(files) or 'no'} .gguf file{'s' if len(files) > 1 else ''}"
    raise SmeltError(
        f"finetune.base: {folder} {what}. A base is a Hugging Face directory (config.json, *.safetensors, "
        f"tokenizer.json), or a folder with one GGUF file"
    )


def load(folder: Path) -> PreTrainedModel:
    """The model in `folder`, in fp32.

    Raises:
        SmeltError: there is none, or one that does not continue text, or one whose head is more than a matrix.
    """
    source = gguf_file(folder)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, about = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **source,
        )
    except Exception as error:  # whatever a reader of damaged or strange files stumbles over
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SmeltError(f"finetune.base: transformers cannot load the model in {folder}: {reason[0]}") from None
    if missing := sorted(about["missing_keys"]):
        raise SmeltError(
            f"finetune.base: {folder} is a {model.config.model_type} without {missing[0]}"
            f"{f' and {len(missing) - 1} other weights' if missing[1:] else ''}; it is no model that continues text"
        )
    if quantiser := getattr(model, "hf_quantizer", None):
        if not source:
            raise SmeltError(
                f"finetune.base: the weights in {folder} are quantised; take the model's original ones. To hold them "
                f"in 4 bits while training, set finetune.method to qlora"
            )
        quantiser.remove_quantization_config(model)  # a GGUF file's weights are unpacked by now
    _check_head(model, folder)
    return model


@torch.no_grad()
def _check_head(model: PreTrainedModel, folder: Path) -> None:
    """Training computes the head by itself, where there is loss (objectives.py): it must be a matrix and no more."""
    tokens = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    if hasattr(model, "model") and hasattr(model, "lm_head"):
        ours = model.lm_head(model.model(input_ids=tokens, use_cache=False).last_hidden_state)
        if torch.allclose(model(input_ids=tokens, use_cache=False).logits, ours, rtol=1e-3, atol=1e-4):
            return
    raise SmeltError(
        f"finetune.base: {folder} is a {model.config.model_type}, whose head is not a matrix after its blocks, as that "
        f"of Llama, Qwen, Mistral, SmolLM and others is; choose one of those"
    )


def fingerprint(folder: Path) -> str:
    """sha256 over the weights alone: what an adapter belongs to, wherever the base lies and whatever lies beside it."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")])
    return hash_value([hash_file(file) for file in files])


def write_card(folder: Path, path: str, chat: Path) -> None:
    """Leave base.json in the folder of the chat model, where others made its base: what it is, and under which licence.

    `path` is the base's, from the repository's root.
    """
    if path == OWN:
        return
    asset = folder / "asset.json"
    about = json.loads(asset.read_text(encoding="utf-8")) if asset.exists() else {}
    card = {
        "path": path,
        "sha256": fingerprint(folder),
        "origin": about.get("package") or about.get("hub"),  # null: a folder that the user brought
        "licence": about.get("licence") or "LicenseRef-Unknown",
    }
    (chat / "base.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
