"""Embedders: what turns texts into vectors whose cosine says how near their meanings are.

folder with modules.json   a model of the sentence-transformers library, by that library
another folder             a BERT encoder such as the pinned all-MiniLM-L6-v2: our own few lines, which load in a third
                           of the time
endpoint                   whatever speaks the OpenAI API's /embeddings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lib.params.retrieval import EmbedderSettings
from lib.pipeline.errors import SmeltError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SAME = 0.99  # cosine of a probe with itself, computed by other machines or in fewer bits


class Embedder(Protocol):
    """Any number of threads may encode at the same time."""

    dimension: int
    max_tokens: int  # that it reads of a text, special ones included
    tokenizer: Tokenizer  # its own, without padding and truncation; an endpoint's is the folder's
    fingerprint: str  # of all that decides its vectors, as far as it is known here
    probe: list[float] | None  # the vector of a fixed sentence, for a model that lies elsewhere

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), dimension], rows of length 1."""

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        """The same of questions, which some models read in another way."""


def check_same(facts: Mapping[str, Any], embedder: Embedder, what: str) -> None:
    """Vectors of different embedders may not be compared.

    Args:
        facts: of an index: its embedder's `fingerprint`, `dimension` and `probe`.
        what: names that index.

    Raises:
        SmeltError: it was built with another embedder than this one.
    """
    known, now = facts["probe"], embedder.probe
    moved = known is not None and now is not None and (len(known) != len(now) or float(np.dot(known, now)) < _SAME)
    if facts["fingerprint"] != embedder.fingerprint or moved:
        raise SmeltError(
            f"{what} was built with another embedder ({facts['dimension']} dimensions, {facts['fingerprint'][:12]}; "
            f"this one has {embedder.dimension}, {embedder.fingerprint[:12]}), and their vectors cannot be compared: "
            f"run `dvc repro index`"
        )


def load_embedder(settings: EmbedderSettings, root: Path, workers: int) -> Embedder:
    """The embedder that `settings` describe.

    Args:
        root: of the repository, which its folder is relative to.
        workers: threads that compute, which change no bit of the result.

    Raises:
        SmeltError: it is not there, or is none.
    """
    folder = root / settings.folder
    if settings.kind == "openai":
        from lib.rag.endpoint import Endpoint

        return Endpoint(settings.openai, folder)
    if (folder / "modules.json").is_file():
        from lib.rag.sentence_transformer import SentenceTransformer

        return SentenceTransformer(folder, workers)
    from lib.rag.bert import Bert

    return Bert(folder, workers)
