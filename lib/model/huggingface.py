"""The Hugging Face directory of a model, which transformers, peft, vLLM and MLX read as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lib.model.config import ModelConfig
from lib.model.decoder import Decoder
from lib.pipeline.errors import SmeltError


def to_hf_config(config: ModelConfig, eos_token_id: int, pad_token_id: int) -> dict[str, Any]:
    """config.json of Qwen3, or of Llama when there is no QK-norm."""
    kind = "qwen3" if config.qk_norm else "llama"
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        # transformers 5 reads rope_parameters; transformers 4, vLLM and llama.cpp's converter read rope_theta.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
        "dtype": "float32",
    }


def from_hf_config(values: dict[str, Any]) -> ModelConfig:
    """The inverse of `to_hf_config`.

    Raises:
        SmeltError: another architecture.
    """
    if values.get("model_type") not in ("qwen3", "llama"):
        raise SmeltError(f"models of type {values.get('model_type')!r} are not this decoder; it is qwen3 or llama")
    return ModelConfig(
        vocab_size=values["vocab_size"],
        context_length=values["max_position_embeddings"],
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=values["num_attention_heads"],
        kv_heads=values["num_key_value_heads"],
        feed_forward=values["intermediate_size"],
        rope_theta=values["rope_parameters"]["rope_theta"],
        norm_eps=values["rms_norm_eps"],
        qk_norm=values["model_type"] == "qwen3",
        tie_embeddings=values["tie_word_embeddings"],
    )


def save(model: Decoder, tokenizer: Path, folder: Path) -> None:
    """Write config, weights, generation settings and the tokenizer of the folder `tokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {
        token["content"]: token["id"]
        for token in json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    }
    separator, end_of_turn, pad = (vocabulary[token] for token in ("<|endoftext|>", "<|im_end|>", "<|pad|>"))
    write_json(folder / "config.json", to_hf_config(model.config, separator, pad))
    write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": [separator, end_of_turn], "pad_token_id": pad},
    )
    weights: dict[str, Tensor] = {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.state_dict().items()
        if not (model.config.tie_embeddings and name == "lm_head.weight")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    copy_tokenizer(tokenizer, folder, end="<|endoftext|>")


def copy_tokenizer(source: Path, folder: Path, end: str) -> None:
    """Copy the tokenizer of the folder `source`; `end` is the token that ends what the model writes."""
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**config, "eos_token": end})


def load(folder: Path) -> Decoder:
    """The decoder of a directory that `save` wrote."""
    model = Decoder(from_hf_config(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    weights = load_file(folder / "model.safetensors")
    if model.config.tie_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return model


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
