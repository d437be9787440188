"""A model in the folder layout of the sentence-transformers library, computed by that library, with its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.rag.batches import by_length


class SentenceTransformer:
    """Reads the model in `folder`; see lib/rag/embed.py.

    Args:
        workers: threads, see lib/rag/batches.py.

    Raises:
        SmeltError: it cannot be read, wants to run code of its own, or has no tokenizer that gives offsets.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        import sentence_transformers
        import torch

        torch.set_num_threads(1)
        self._folder, self._workers = folder, workers
        try:
            self._model = sentence_transformers.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )  # fmt: skip
        except Exception as error:
            raise SmeltError(f"the embedder {folder} cannot be read: {' '.join(str(error).split())[:300]}") from None
        self.dimension: int = self._model.get_embedding_dimension()
        self.probe: list[float] | None = None
        self.max_tokens: int = self._model.max_seq_length or 512
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise SmeltError(
                f"the embedder {folder} has no tokenizer.json, without which texts cannot be cut to its limit"
            )
        self.tokenizer = type(backend).from_str(backend.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all files."""
        return hash_path(self._folder)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return by_length(texts, [len(text) for text in texts], self._documents, self.dimension, self._workers)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        return by_length(texts, [len(text) for text in texts], self._questions, self.dimension, self._workers)

    def _documents(self, texts: list[str]) -> np.ndarray:
        return self._model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)

    def _questions(self, texts: list[str]) -> np.ndarray:
        return self._model.encode_query(texts, normalize_embeddings=True, show_progress_bar=False)
