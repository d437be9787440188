"""Sentence embeddings with a BERT encoder: mean of the last hidden states, L2-normalised (https://arxiv.org/abs/1908.10084)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.batches import by_length

FILES = ("config.json", "model.safetensors", "tokenizer.json")
MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was published for; trained with 128: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2


class Bert:
    """A BERT encoder read from `folder`: config.json, model.safetensors and tokenizer.json.

    Args:
        workers: threads, see lib/rag/batches.py.
        bf16: whether to compute in bf16; None: where the processor is quick in it. all-MiniLM-L6-v2 then embeds 77
            passages a second and not 42, whose cosine with those of fp32 is 0.9999.

    Raises:
        SmeltError: a file is missing or does not fit the others.
    """

    def __init__(self, folder: Path, workers: int, bf16: bool | None = None) -> None:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise SmeltError(f"the embedder {folder} has no {', '.join(missing)}; run `dvc repro assets@{folder.name}`")

        import torch
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        from lib.backends.bf16 import has_bf16

        torch.set_num_threads(1)
        self._folder, self._workers = folder, workers
        config = BertConfig.from_json_file(folder / "config.json")
        self._model = BertModel(config, add_pooling_layer=False).eval()
        try:
            unfilled = self._model.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
        except RuntimeError as error:
            raise SmeltError(f"{folder}: model.safetensors does not fit config.json: {error}") from None
        if unfilled:
            raise SmeltError(f"{folder}/model.safetensors is not a BERT encoder: it has no {', '.join(unfilled[:3])}")
        if has_bf16() if bf16 is None else bf16:
            self._model = self._model.to(torch.bfloat16)
        self.dimension: int = config.hidden_size
        self.probe: list[float] | None = None
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()  # tokenizer.json pads and cuts to 128
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
        self.max_tokens = min(MAX_TOKENS, config.max_position_embeddings)
        self._truncating = Tokenizer.from_str(self.tokenizer.to_str())
        self._truncating.encode_special_tokens = True
        self._truncating.enable_truncation(self.max_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the three files: vectors of different embedders may not be compared."""
        digest = hashlib.sha256()
        for name in FILES:
            with (self._folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), dimension], rows of length 1. Of a text, its first 254 tokens are read."""
        ids = [encoding.ids for encoding in self._truncating.encode_batch(list(texts))]
        return by_length(ids, [len(row) for row in ids], self._forward, self.dimension, self._workers)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        """The same: this kind of model reads questions as it reads texts."""
        return self.encode(texts)

    def _forward(self, ids: list[list[int]]) -> np.ndarray:
        import torch

        length = max(map(len, ids))
        input_ids = torch.tensor([row + [0] * (length - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
        with torch.inference_mode():
            hidden = self._model(input_ids=input_ids, attention_mask=mask).last_hidden_state.float()
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            return torch.nn.functional.normalize(mean, dim=1).numpy()
