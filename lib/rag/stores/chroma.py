"""Chroma, embedded: a graph of neighbours (HNSW) in a folder of this machine.

A folder belongs to one process at a time: Chroma's own rule. Another process that asks meanwhile takes the next one, so
that the server, the terminal and the evaluation do not wait for each other.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.passage import Passage

_COLLECTION = "passages"
_DIGEST = "digest"
_DOCUMENTS = 500  # of one deletion


class Chroma:
    def __init__(self, home: Path) -> None:
        import chromadb

        self._folder, self._lock = _free(home)
        settings = chromadb.Settings(anonymized_telemetry=False, allow_reset=False)
        try:
            self._client: Any = chromadb.PersistentClient(self._folder, settings=settings)
            self._collection: Any = self._open()
        except Exception as error:  # it has no class of its own for a damaged database or one of another version
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SmeltError(
                f"Chroma cannot read {self._folder} ({type(error).__name__}); it was made from the index and is "
                f"removed now: run the same command again, which makes a new one"
            ) from None

    def _open(self) -> Any:
        return self._client.get_or_create_collection(
            _COLLECTION, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def digest(self) -> str | None:
        return (self._collection.metadata or {}).get(_DIGEST)

    def clear(self) -> None:
        self._client.delete_collection(_COLLECTION)
        self._collection = self._open()

    def delete(self, documents: Sequence[str]) -> None:
        for at in range(0, len(documents), _DOCUMENTS):
            self._collection.delete(where={"document": {"$in": list(documents[at : at + _DOCUMENTS])}})

    def add(self, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        self._collection.upsert(
            ids=[passage.id for passage in passages],
            embeddings=vectors,
            documents=[passage.text for passage in passages],
            metadatas=[
                {
                    "document": one.document,
                    "source": one.source,
                    "heading": one.heading,
                    "start": one.start,
                    "end": one.end,
                }
                for one in passages
            ],
        )

    def commit(self, digest: str) -> None:
        self._collection.modify(metadata={_DIGEST: digest})

    def nearest(self, vector: np.ndarray, limit: int, sources: Collection[str] | None) -> list[str]:
        where = None if sources is None else {"source": {"$in": sorted(sources)}}
        found = self._collection.query(query_embeddings=[vector], n_results=limit, where=where, include=[])
        return found["ids"][0]

    def close(self) -> None:
        self._client.close()
        self._lock.close()


def _free(home: Path) -> tuple[Path, IO[str]]:
    """The first folder that no process uses, and the lock that holds it for as long as it is open."""
    home.mkdir(parents=True, exist_ok=True)
    for number in count():
        lock = (home / f"chroma-{number}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return home / f"chroma-{number}", lock
    raise AssertionError("there is always another number")
