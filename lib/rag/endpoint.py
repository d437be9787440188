"""An embedder behind the OpenAI API's /embeddings: vLLM, llama.cpp, Ollama, text-embeddings-inference or a vendor's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.params.retrieval import EmbeddingEndpoint
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_value

_PROBE = "A question, and the passage that answers it."


class Endpoint:
    """Asks the server of `settings`; see lib/rag/embed.py. The openai package retries what fails in passing.

    A server can change its model and keep the name: so an index keeps the vector of a fixed sentence, `probe`.

    Args:
        folder: whose tokenizer.json measures texts, as the server's own is not known.

    Raises:
        SmeltError: the key is missing, or the server does not answer.
    """

    def __init__(self, settings: EmbeddingEndpoint, folder: Path) -> None:
        from openai import OpenAI
        from tokenizers import Tokenizer

        if not (folder / "tokenizer.json").is_file():
            raise SmeltError(
                f"index.embedder.folder has no tokenizer.json, which measures texts for an endpoint: {folder}"
            )
        key = os.environ.get(settings.key, "").strip() if settings.key else "none"
        if not key:
            raise SmeltError(f"{settings.url} wants a key: the environment variable {settings.key} holds none")
        self._settings, self._key = settings, key
        self._client = OpenAI(
            base_url=settings.url, api_key=key, timeout=settings.timeout_seconds, max_retries=settings.retries,
            organization="", project="",  # else they are read from the environment, and are for another server
        )  # fmt: skip
        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.max_tokens: int = settings.max_tokens
        (probe,) = self._ask([_PROBE])
        self.dimension: int = len(probe)
        self.probe: list[float] | None = [round(value, 4) for value in probe.tolist()]
        self.fingerprint = hash_value([settings.model, self.dimension, settings.prefix, settings.question_prefix])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts, self._settings.prefix)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts, self._settings.question_prefix)

    def _encode(self, texts: Sequence[str], prefix: str) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        size = self._settings.batch
        for at in range(0, len(texts), size):
            found = self._ask([prefix + text for text in texts[at : at + size]])
            if found.shape[1] != self.dimension:
                raise SmeltError(
                    f"{self._name} gives vectors of {found.shape[1]} dimensions, and of {self.dimension} before"
                )
            vectors[at : at + size] = found
        return vectors

    @property
    def _name(self) -> str:
        return f"{self._settings.model} at {self._settings.url}"

    def _ask(self, texts: list[str]) -> np.ndarray:
        """float32 [len(texts), dimension], rows of length 1."""
        import openai

        try:
            answer = self._client.embeddings.create(
                model=self._settings.model or "", input=texts, encoding_format="float"
            )
            found = np.array([one.embedding for one in sorted(answer.data, key=lambda one: one.index)], np.float32)
        except openai.APIConnectionError as error:
            raise SmeltError(f"{self._name} cannot be reached: {self._clean(error)}. Is the server running?") from None
        except openai.OpenAIError as error:
            raise SmeltError(f"{self._name} refuses: {self._clean(error)}") from None
        except (AttributeError, TypeError, ValueError):
            raise SmeltError(f"{self._name} answers with something other than vectors") from None
        if found.ndim != 2 or len(found) != len(texts) or not found.shape[1] or not np.isfinite(found).all():
            raise SmeltError(f"{self._name} answers with something other than one vector for each text")
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def _clean(self, error: Exception) -> str:
        """What a server said, on one line; some repeat the key."""
        return " ".join(str(error).replace(self._key, "[key]").split())[:300]
