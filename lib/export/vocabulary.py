"""The tokenizer of a model as llama.cpp knows it: its tokens, what they are for, and how text is cut before merging.

llama.cpp knows how to cut text by a name, `tokenizer.ggml.pre`. Its converter looks that name up by a hash of the
tokenizer and fails on any that is trained at home (https://github.com/ggml-org/llama.cpp/issues/8649), so the name is
found here by what the tokenizer does. One step has no counterpart there: llama.cpp does not normalise text to NFC. Text
that is not NFC already is read as other tokens than in transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf

from lib.pipeline.errors import SmeltError

# What llama.cpp does for each name. The first is a copy of lib/tokenizer's pattern on purpose: this says what llama.cpp
# can read (llm_tokenizer_bpe in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp).
_SPLITS = {
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ): "qwen2",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ): "llama-bpe",
}
_TEXT_END = "<|endoftext|>"


def add(writer: gguf.GGUFWriter, model: Path, vocab_size: int) -> None:
    """Write the tokenizer and chat template of the Hugging Face directory `model`.

    Raises:
        SmeltError: it is no byte-level BPE, or cuts text in a way that llama.cpp does not know; or it has more tokens
            than the model; or it has no chat template.
    """
    tokenizer, config = (
        json.loads((model / name).read_text(encoding="utf-8")) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    cut = find_cut(tokenizer, model)
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | {text: token["id"] for text, token in added.items()}
    if max(ids.values()) >= vocab_size:
        raise SmeltError(
            f"{model}: the tokenizer has ids up to {max(ids.values())}, the model a vocabulary of {vocab_size}"
        )
    # Rows of the embedding without a token, if any, are padding.
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [gguf.TokenType.UNUSED] * vocab_size
    for text, index in ids.items():
        tokens[index] = text
        types[index] = gguf.TokenType.NORMAL
        if text in added:
            types[index] = gguf.TokenType.CONTROL if added[text]["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    # llama.cpp ends an answer at eos and at eot, and by its name at <|endoftext|>.
    end = ids[config["eos_token"]]
    begin = config.get("bos_token") or _TEXT_END
    writer.add_bos_token_id(ids.get(begin, end))
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_pad_token_id(ids[config["pad_token"]])
    writer.add_add_bos_token(_begins_with(tokenizer, begin))
    if not config.get("chat_template"):
        raise SmeltError(f"{model}/tokenizer_config.json has no chat_template, without which nobody can chat with it")
    writer.add_chat_template(config["chat_template"])


def find_cut(tokenizer: dict[str, Any], model: Path) -> str:
    """llama.cpp's name for how the tokenizer of `model` cuts text before its merges.

    Raises:
        SmeltError: it has none.
    """
    bpe, normalizer = tokenizer["model"], tokenizer.get("normalizer")
    if bpe["type"] != "BPE" or (normalizer and normalizer["type"] != "NFC"):
        raise SmeltError(
            f"{model} has a tokenizer of type {bpe['type']} with normaliser {normalizer and normalizer['type']}; GGUF "
            f"export knows byte-level BPE, with NFC or none"
        )
    name = None
    match tokenizer["pre_tokenizer"]:
        case {
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ]
        }:
            name = _SPLITS.get(pattern)
        case {
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ]
        }:
            name = "smollm"
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            name = "gpt-2"
    # llama.cpp takes a piece that is a token as it is for `llama-bpe`, and merges for the others.
    if name and bpe.get("ignore_merges", False) == (name == "llama-bpe"):
        return name
    known = ", ".join([*_SPLITS.values(), "smollm", "gpt-2"])
    raise SmeltError(
        f"{model}/tokenizer.json cuts text in a way that is none of {known}; llama.cpp would read other tokens"
    )


def _begins_with(tokenizer: dict[str, Any], token: str) -> bool:
    """Whether the tokenizer puts this token before every text."""
    post = tokenizer.get("post_processor") or {}
    parts = [post, *post.get("processors", [])]
    return any(
        next(iter(part.get("single", [])), {}).get("SpecialToken", {}).get("id") == token
        for part in parts
        if part.get("type") == "TemplateProcessing"
    )
