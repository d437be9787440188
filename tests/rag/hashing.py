"""An embedder without weights: words hashed into a vector. Texts that share words are near, and it needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from tests.rag.tiny import tokenizer


class Hashing:
    dimension, max_tokens = 64, 256
    probe = None

    def __init__(self, seed: int = 0) -> None:
        self._seed, self.fingerprint = seed, f"hashing {seed}"
        self.tokenizer: Tokenizer = tokenizer()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            vector[0] = 0.1  # a text without words has a direction too
            for word in text.lower().split():
                digest = hashlib.sha256(f"{self._seed} {word}".encode()).digest()
                vector[1 + digest[0] % 63] += 1 if digest[1] % 2 else -1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode(texts)
