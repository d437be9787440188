"""Small random models in Hugging Face directories, as finetune leaves them in models/chat."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lib.export.lineage import Lineage, combine
from lib.export.model_card import About
from lib.tokenizer.train import save_tokenizer, train_tokenizer

VOCAB_SIZE = 640
MODELS = ("qwen3", "qwen3_tied", "llama", "llama_tied", "qwen2")

STAGES = [
    {
        "stage": "mix",
        "code": "c1",
        "params": {
            "seed": 1,
            "sources": {
                "internal": {"kind": "folder", "licence": "LicenseRef-Private", "pii": "redact"},
                "manual": {
                    "kind": "package",
                    "package": "manual==1.0",
                    "sha256": "ab" * 32,
                    "licence": "Apache-2.0",
                    "pii": "keep",
                },
                "wiki": {
                    "kind": "package",
                    "package": "wiki==2.1",
                    "sha256": "cd" * 32,
                    "licence": "CC-BY-SA-4.0",
                    "pii": "keep",
                },
                "two": {
                    "kind": "package",
                    "package": "two==3",
                    "sha256": "ef" * 32,
                    "licence": "MIT OR BSD-3-Clause",
                    "pii": "keep",
                },
            },
        },
        "pins": {"data": ["datatrove==0.10.1"]},
        "inputs": {"data/dedup": "d1"},
    },
    {
        "stage": "pretrain",
        "code": "c2",
        "params": {"model": {"layers": 2}},
        "pins": {},
        "inputs": {"data/tokens": "d2"},
    },
    {
        "stage": "decay",
        "code": "c2",
        "params": {"decay": {"fraction": 0.6}},
        "pins": {},
        "inputs": {"models/stable": "d4"},
    },
    {"stage": "finetune", "code": "c3", "params": {"finetune": {"rank": 4}}, "pins": {}, "inputs": {"data/chat": "d3"}},
    {"stage": "prefer", "code": "c4", "params": {"prefer": {"beta": 0.1}}, "pins": {}, "inputs": {"models/sft": "d5"}},
]
MIXTURE = {
    name: {
        "documents": {"available": count, "train": count, "val": 0, "test": 0},
        "licence": licence,
        "share_alike": name == "wiki",
    }
    for name, count, licence in (
        ("internal", 0, "LicenseRef-Private"),
        ("manual", 120, "Apache-2.0"),
        ("wiki", 30, "CC-BY-SA-4.0"),
        ("two", 1, "MIT OR BSD-3-Clause"),
    )
}


EVALUATED = {
    "bits_per_byte": {"overall": {"value": 1.5798, "stderr": 0.0434}, "sources": {}},
    "commands": {
        "examples": 100,
        "service": {"value": 0.48, "stderr": 0.0502},
        "exact_match": {"value": None, "stderr": None},
    },
    "tasks": {"piqa": {"questions": 60, "accuracy": {"value": 0.5333, "stderr": 0.0649}}},
}
LANGUAGES = {"manual": {}, "wiki": {"en": 290, "fr": 9, "de": 1}}


def about(format: str, **changes: object) -> About:
    return About(
        **{"format": format, "evaluation": EVALUATED, "languages": ["en"], "pii": {"wiki": "keep"}, "files": {},
           "context": 256} | changes
    )  # fmt: skip


@pytest.fixture(scope="session")
def lineage() -> Lineage:
    return combine(STAGES, MIXTURE)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    english = Path(argparse.__file__).read_text(encoding="utf-8")
    other = "Größe, naïve café. Привет, мир! 你好，世界。 日本語のテキスト。 I'll, we've, DON'T. 2024\n\n\t" * 8
    save_tokenizer(train_tokenizer(iter([english, other]), VOCAB_SIZE), folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`make_model(kind)`: the directory of a model whose weights are exact in float16 and whose logits are peaked."""
    made: dict[str, Path] = {}

    def build(kind: str) -> Path:
        shared = {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": kind.endswith("_tied"),
            "eos_token_id": 0,
        }
        torch.manual_seed(MODELS.index(kind))
        model: PreTrainedModel
        if kind.startswith("qwen3"):
            model = Qwen3ForCausalLM(Qwen3Config(**shared, head_dim=128))  # heads * head_dim is not the width
        elif kind.startswith("qwen2"):
            model = Qwen2ForCausalLM(Qwen2Config(**shared))  # which has biases
        else:
            model = LlamaForCausalLM(LlamaConfig(**shared, head_dim=64))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:
                    weight.uniform_(0.5, 1.5)
                else:
                    outer = "embed" in name or "lm_head" in name
                    weight.normal_(0, 0.3 if outer else (0.4 if "down" in name else 1.0) * weight.shape[1] ** -0.5)
            if not kind.endswith("_tied"):  # a favourite successor for each token, so that greedy choices are clear
                model.lm_head.weight += 0.1 * model.model.embed_tokens.weight.normal_().roll(7, dims=0)
            for weight in model.parameters():
                weight.copy_(weight.half().float())
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
        config = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|im_end|>"}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2], "pad_token_id": 3}))
        return folder

    def cached(kind: str) -> Path:
        if kind not in made:
            made[kind] = build(kind)
        return made[kind]

    return cached
