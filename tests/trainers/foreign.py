"""Bases that others made, small: a Llama with a tokenizer and perhaps a template of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tokenizer.conftest import sentences

TURNS = ("<|begin|>", "<|user|>", "<|bot|>", "<|stop|>")  # not ChatML's
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ ('<|user|>' if message['role'] == 'user' else '<|bot|>') + message['content'] | trim + '<|stop|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|bot|>' }}{% endif %}"
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SMOLLM = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]


def tokenizer(special: tuple[str, ...], vocab_size: int = 400) -> Tokenizer:
    """Byte-level BPE that cuts text as SmolLM2's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(SMOLLM)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(sentences(), trainer)
    return made


def write(
    folder: Path, special: tuple[str, ...] = CHATML, template: str | None = None, seed: int = 0, **shape: Any
) -> Path:
    """A Hugging Face directory. Without a `template` it is a base that brings none."""
    own = tokenizer(special)
    torch.manual_seed(seed)
    given = {
        "vocab_size": own.get_vocab_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**{**given, **shape})).save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[0]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template else {}))
    )
    return folder
