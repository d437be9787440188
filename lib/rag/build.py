"""From documents to passages with vectors, for a new index and for changes of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.params.retrieval import Index as Settings
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_value
from lib.rag.chunk import Chunker
from lib.rag.embed import Embedder
from lib.rag.index import Index, Indexed
from lib.rag.passage import Passage
from lib.text.documents import Document

_BLOCK = 512  # passages embedded at a time; sorted by length within
_SPARE = 8  # tokens: the two that mark a text's ends, and what a tokenizer may need more for parts than for a whole


class Embedded(NamedTuple):
    document: Document
    passages: list[Passage]
    vectors: np.ndarray  # float32 [passages, dimension]


def facts(settings: Settings, embedder: Embedder) -> dict[str, Any]:
    """What an index built with these has to know later on."""
    return {
        "settings": settings.model_dump(mode="json"),
        "fingerprint": embedder.fingerprint,
        "dimension": embedder.dimension,
        "probe": embedder.probe,
    }


def settings_of(index: Index) -> Settings:
    """What `index` was built with."""
    return Settings.model_validate(index.facts["settings"])


def make_chunker(settings: Settings, embedder: Embedder) -> Chunker:
    """Cuts what this embedder reads whole.

    Raises:
        SmeltError: the embedder reads less than a passage of `chunk_tokens`.
    """
    room = embedder.max_tokens - _SPARE - settings.chunk_tokens
    if room < 0:
        raise SmeltError(
            f"index.chunk_tokens is {settings.chunk_tokens}, and the embedder reads {embedder.max_tokens} tokens: set "
            f"it to {embedder.max_tokens - _SPARE} at most"
        )
    return Chunker(embedder.tokenizer, settings.chunk_tokens, settings.overlap_tokens, room)


def embed(
    documents: Iterable[Document], chunker: Chunker, embedder: Embedder, kept: Path | None = None, code: Any = None
) -> Iterator[Embedded]:
    """The passages of each document and their vectors, in order.

    Args:
        kept: a folder where vectors are kept by the texts that were embedded together (which decide their last bits):
            a run that was killed goes on from there, and a change of how the index is searched embeds nothing.
        code: what computes them, beside the embedder: of other code, none are taken.
    """
    used: set[Path] = set()
    waiting: list[tuple[Document, list[Passage]]] = []
    size = 0

    def finish() -> Iterator[Embedded]:
        texts = [chunker.reading(passage) for _, passages in waiting for passage in passages]
        vectors = _vectors(texts, embedder, code, kept, used)
        at = 0
        for document, passages in waiting:
            yield Embedded(document, passages, vectors[at : at + len(passages)])
            at += len(passages)

    for document in documents:
        waiting.append((document, list(chunker.passages(document))))
        size += len(waiting[-1][1])
        if size >= _BLOCK:
            yield from finish()
            waiting, size = [], 0
    yield from finish()
    if kept is not None:
        for path in set(kept.glob("*")) - used:
            path.unlink()


def _vectors(texts: list[str], embedder: Embedder, code: Any, kept: Path | None, used: set[Path]) -> np.ndarray:
    if kept is None or not texts:
        return embedder.encode(texts)
    path = kept / f"{hash_value([embedder.fingerprint, code, texts])}.npy"
    used.add(path)
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == (len(texts), embedder.dimension) and found.dtype == np.float32:
            return found
    except (OSError, ValueError, EOFError):
        pass
    vectors = embedder.encode(texts)
    kept.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    partial.replace(path)
    return vectors


def write_index(
    folder: Path, settings: Settings, embedder: Embedder, documents: Iterable[Document], kept: Path | None = None,
    code: Any = None,
) -> Index:  # fmt: skip
    """A new index of `documents` in `folder`; `kept` and `code` as `embed` has them."""
    chunker = make_chunker(settings, embedder)
    index = Index.create(folder, facts(settings, embedder))
    with index.change() as change:
        for document, passages, vectors in embed(documents, chunker, embedder, kept, code):
            change.put(document.id, Indexed(document.source, document.hash, None), passages, vectors)
    index.compact()
    return index
