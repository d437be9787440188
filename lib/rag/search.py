"""Search an index: the passages nearest to a question, by meaning, by words, or by both.

    vector    cosine of the embeddings; `score` is that cosine
    keyword   words in common, rare ones first (BM25); `score` is BM25's
    hybrid    both, their ranks fused; `score` is the sum of 1 / (60 + rank)
    rerank    the best of hybrid, ordered by a model that reads question and passage together; `score` is what it says

What is close enough is decided by measures that mean the same for every question: a cosine of `min_similarity`, or
`min_words` of the question's words, weighted by how rare they are; for rerank its own `min_score`. A vector store only
proposes candidates: cosines are computed from the index itself, so that all stores give the same scores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.build import settings_of
from lib.rag.embed import Embedder, check_same, load_embedder
from lib.rag.fusion import reciprocal_ranks
from lib.rag.index import Index
from lib.rag.passage import Hit, Passage
from lib.rag.rerank import Reranker
from lib.rag.store import Store, open_store, synchronise

STORES = Path(".scratch/stores")
MODES = ("vector", "keyword", "hybrid", "rerank")


class _Candidate(NamedTuple):
    passage: Passage
    cosine: float
    share: float  # of the question's words


class Retriever:
    """Searches an index. Any number of threads may do so at the same time.

    An index that changes meanwhile (`make ingest`, `dvc repro`) is noticed by the next search.

    Attributes:
        embedder: the one that the index was built with.
        settings: what the index was built with: its `top_k`, `mode` and so on.
        modes: the names that `search` knows.
    """

    def __init__(
        self, index: Index, embedder: Embedder, store: Store, reranker: Reranker | None, log: Callable[[str], None]
    ) -> None:
        self.settings = settings_of(index)
        self.embedder, self._store, self._reranker, self._log = embedder, store, reranker, log
        self.modes = tuple(mode for mode in MODES if mode != "rerank" or reranker is not None)
        self._index, self._seen = index, _stamp(index.path)
        self._refreshing = threading.Lock()
        synchronise(store, index, log)

    @classmethod
    def open(
        cls,
        folder: Path,
        embedder: Embedder | None = None,
        stores: Path = STORES,
        root: Path = Path(),
        log: Callable[[str], None] = lambda message: None,
    ) -> Retriever:
        """The index in `folder`, ready to be searched.

        Args:
            embedder: loaded already; None loads the one that the index was built with.
            stores: where this machine keeps what an embedded vector store makes of the index.
            root: of the repository, which the paths of models are relative to.

        Raises:
            SmeltError: there is no index, it is damaged, or it was built with another embedder; its store cannot be
                reached, or holds something else.
        """
        index = Index.open(folder)
        settings = settings_of(index)
        embedder = embedder or load_embedder(settings.embedder, root, workers=1)
        check_same(index.facts, embedder, str(folder))
        store = open_store(settings.store, embedder.dimension, stores)
        try:
            reranker = Reranker(root / settings.rerank.folder) if settings.rerank else None
            return cls(index, embedder, store, reranker, log)
        except BaseException:
            store.close()
            raise

    def search(
        self,
        question: str,
        top_k: int | None = None,
        sources: Collection[str] | None = None,
        mode: str | None = None,
    ) -> list[Hit]:
        """The passages nearest to `question`, best first; none where nothing is close enough.

        Args:
            top_k: at most so many; None is what the index was built with.
            sources: only passages from these; None is all, and a source that the index does not have finds nothing.
            mode: one of `modes`; None is what the index was built with.

        Raises:
            SmeltError: there is no such mode, or the store cannot be reached any more.
        """
        mode = mode or self.settings.mode
        if mode not in self.modes:
            hint = "; rerank needs index.rerank in params.yaml" if mode == "rerank" else ""
            raise SmeltError(f"there is no search mode {mode!r} here; there are: {', '.join(self.modes)}{hint}")
        if sources is not None and not sources:
            return []
        limit = max(self.settings.candidates, top_k or 0)
        index = self._current()
        if mode == "keyword":
            vector, nearest = np.zeros(self.embedder.dimension, np.float32), []
        else:
            vector = self.embedder.encode_questions([question])[0]
            nearest = index.numbers(self._store.nearest(vector, limit, sources))
        matches = [] if mode == "vector" else index.keywords(question, limit, sources)
        shares = {match.number: match.share for match in matches}
        found = {
            number: _Candidate(passage, float(vector @ stored), shares.get(number, 0.0))
            for number, (passage, stored) in index.passages([*dict.fromkeys([*nearest, *shares])]).items()
        }
        nearest = sorted((number for number in nearest if number in found), key=lambda one: (-found[one].cosine, one))
        if mode == "vector":
            scores = {number: found[number].cosine for number in nearest}
        elif mode == "keyword":
            scores = {match.number: match.bm25 for match in matches if match.number in found}
        else:
            scores = reciprocal_ranks([nearest, [number for number in shares if number in found]])
        ranked = sorted(
            (number for number in scores if self._is_close(found[number], mode)), key=lambda one: (-scores[one], one)
        )
        hits = _distinct([Hit(found[number].passage, scores[number]) for number in ranked])
        if mode == "rerank":
            hits = self._rerank(question, hits[:limit])
        return hits[: top_k or self.settings.top_k]

    def _is_close(self, one: _Candidate, mode: str) -> bool:
        by_words = mode != "vector" and one.share >= self.settings.min_words
        return by_words or (mode != "keyword" and one.cosine >= self.settings.min_similarity)

    def _rerank(self, question: str, hits: list[Hit]) -> list[Hit]:
        assert self._reranker is not None
        assert self.settings.rerank is not None
        scores = self._reranker.scores(question, [hit.passage.text for hit in hits]) if hits else []
        scored = [Hit(hit.passage, score) for hit, score in zip(hits, scores, strict=True)]
        close = [hit for hit in scored if hit.score >= self.settings.rerank.min_score]
        return sorted(close, key=lambda hit: -hit.score)

    def document(self, id: str) -> list[Passage]:
        """The passages of a document in its order; none where the index does not have it. They may overlap."""
        return self._current().document(id)

    def sources(self) -> dict[str, int]:
        """How many passages each source has."""
        return self._current().sources()

    def _current(self) -> Index:
        """The index as it is now, with the store brought up to it. One thread does that; the others go on meanwhile."""
        try:
            stamp = _stamp(self._index.path)
        except FileNotFoundError:  # it is being replaced; the old one stays readable until the new one is there
            return self._index
        if stamp != self._seen and self._refreshing.acquire(blocking=False):
            try:
                replaced = stamp[0] != self._seen[0]
                index = Index.open(self._index.path.parent) if replaced else self._index
                if replaced:
                    check_same(index.facts, self.embedder, str(index.path.parent))
                synchronise(self._store, index, self._log)
                self._index, self._seen = index, stamp
            finally:
                self._refreshing.release()
        return self._index

    def close(self) -> None:
        """Give up what is held open. Nothing may be searched afterwards."""
        self._index.close()
        self._store.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes when the file is replaced or written to."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _distinct(hits: list[Hit]) -> list[Hit]:
    """Without passages that repeat one before them to the letter: copies of a document."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.passage.text, hit)
    return list(first.values())
