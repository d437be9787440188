"""The tokenizer inside a GGUF file, with text cut as llama.cpp cuts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lib.pipeline.errors import SmeltError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Cuts of byte-level vocabularies that transformers reads as llama.cpp does.
_CUTS = ("gpt-2", "default", "llama3", "llama-v3", "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "gpt-4o")


def read_gguf_tokenizer(folder: Path, file: str) -> PreTrainedTokenizerFast:
    """The tokenizer of `folder`/`file`, as transformers reads it but for cuts that it takes for others.

    Raises:
        SmeltError: a cut that is not known: the model would read other tokens than it learnt.
    """
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(folder / file))
    # Not AutoTokenizer: it first parses all of a GGUF file for the model's configuration, which takes 7 s, this 0.5 s.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=file)
    cut = metadata.get("tokenizer.ggml.pre")
    if cut == "smollm":  # which transformers takes for GPT-2's
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif metadata.get("tokenizer.ggml.model") == "gpt2" and cut not in (*_CUTS, None):
        raise SmeltError(
            f"{folder / file} cuts text as {cut!r}, which is not known here: the model would read other tokens than it "
            f"learnt. Use the model's Hugging Face directory in place of the GGUF file"
        )
    return tokenizer
