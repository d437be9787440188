"""Whatever is evaluated, in one shape: a Hugging Face directory or a single GGUF file, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.model.gguf_tokenizer import read_gguf_tokenizer
from lib.pipeline.errors import SmeltError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]  # Run.progress: items, how many, their unit

_LONGEST_WINDOW = 1024  # tokens; own models read less, and the memory of attention and logits stays bounded
_SEPARATOR = "<|endoftext|>"
_ENDS = (_SEPARATOR, "<|im_end|>")


@dataclass(frozen=True)
class LanguageModel:
    """A causal model in fp32 and evaluation mode, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    window: int  # tokens that it reads at once
    begin: int  # the token that a document follows
    ends: list[int]  # tokens that end an answer

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_language_model(folder: Path, device: torch.device) -> LanguageModel:
    """Load the model in `folder`: a Hugging Face directory, or one GGUF file, which is de-quantised.

    Raises:
        SmeltError: the folder holds neither.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    files = sorted(folder.glob("*.gguf"))
    if not (folder / "config.json").exists() and len(files) != 1:
        raise SmeltError(f"{folder} holds no model: expected config.json with its weights, or one .gguf file")
    source = {} if (folder / "config.json").exists() else {"gguf_file": files[0].name}
    if source:
        tokenizer = read_gguf_tokenizer(folder, source["gguf_file"])
    else:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
    return as_language_model(model.to(device), tokenizer)


def as_language_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    vocabulary = tokenizer.get_vocab()
    ends = {vocabulary[token] for token in _ENDS if token in vocabulary} | {tokenizer.eos_token_id}
    # The separator even where there is a bos: SmolLM2's is `<|im_start|>`, after which it needs 3% more bits per byte.
    begin = vocabulary.get(_SEPARATOR, tokenizer.bos_token_id)
    window = min(model.config.max_position_embeddings, _LONGEST_WINDOW)
    return LanguageModel(model.eval(), tokenizer, window, begin, sorted(ends))
