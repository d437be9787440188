"""Vector stores: where the passages nearest to a vector are looked up. Which one: `index.store` in params.yaml.

    chroma     embedded (default); lives in .scratch, made from the index when it is first searched
    qdrant     a server at SMELT_QDRANT (key in SMELT_QDRANT_KEY); without one, Qdrant's local mode, in memory: on disk
               it would keep pickles
    pgvector   a PostgreSQL at SMELT_POSTGRES, as postgresql://user@host/database (PGPASSWORD and ~/.pgpass are read)

LangChain's and LlamaIndex's store classes, which wrap the same clients, were the alternative: they know no state of an
index to go on from, each gives scores of its own kind, and they bring dozens of packages.

A store is made from the index and can be lost. It remembers the digest of the state of the index that it holds, and is
brought up to date by what changed since: in time proportional to that, and again from the same place if it was killed.
On a server the collection or table is called SMELT_COLLECTION (smelt_passages).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.index import Index
from lib.rag.passage import Passage

BLOCK = 1000  # passages that are handed over at a time


class Store(Protocol):
    """Vectors of passages. Any number of threads may look them up; one at a time changes them."""

    def digest(self) -> str | None:
        """What `commit` was given last; None: nothing is there, or it was begun and not finished."""

    def clear(self) -> None:
        """Begin again without any passage."""

    def delete(self, documents: Sequence[str]) -> None:
        """Delete the passages of these documents, where there are any."""

    def add(self, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        """Add passages with their vectors, float32 [len(passages), dimension], in place of those with the same ids."""

    def commit(self, digest: str) -> None:
        """Remember the state of the index that is now held."""

    def nearest(self, vector: np.ndarray, limit: int, sources: Collection[str] | None) -> list[str]:
        """Ids of the passages nearest to `vector` by cosine, the nearest first; of these sources, or (None) of all.

        Raises:
            SmeltError: the store cannot be reached.
        """

    def close(self) -> None: ...


def open_store(name: str, dimension: int, home: Path) -> Store:
    """The store called `name`.

    Args:
        dimension: of the vectors.
        home: the folder for what an embedded store keeps.

    Raises:
        SmeltError: it cannot be reached, or holds something else: vectors of another dimension, or what Smelt did not
            put there.
    """
    collection = os.environ.get("SMELT_COLLECTION") or "smelt_passages"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,47}", collection):
        raise SmeltError(f"SMELT_COLLECTION is {collection!r}: letters, digits and _ make a name, at most 48")
    if name == "qdrant":
        from lib.rag.stores.qdrant import Qdrant

        return Qdrant(os.environ.get("SMELT_QDRANT"), os.environ.get("SMELT_QDRANT_KEY"), collection, dimension)
    if name == "pgvector":
        from lib.rag.stores.pgvector import Pgvector

        if not (address := os.environ.get("SMELT_POSTGRES")):
            raise SmeltError(
                "index.store is pgvector, and SMELT_POSTGRES does not say where the database is: set it, for example "
                "to postgresql://user@127.0.0.1/database"
            )
        return Pgvector(address, collection, dimension)
    from lib.rag.stores.chroma import Chroma

    return Chroma(home)


def synchronise(store: Store, index: Index, log: Callable[[str], None] = lambda message: None) -> str:
    """Bring `store` to the state of `index`, whose digest comes back."""
    now, known = index.digest, store.digest()
    if now == known:
        return now
    changed = index.changed_since(known) if known is not None else None
    if changed is None:
        log(f"filling the vector store with {index.count()[1]:,} passages")
        store.clear()
    else:
        store.delete(changed)
    for passages, vectors in index.blocks(changed, BLOCK):
        store.add(passages, vectors)
    store.commit(now)
    return now


def other_dimension(where: str, found: int, wanted: int) -> SmeltError:
    return SmeltError(
        f"{where} holds vectors of {found} dimensions, and those of the index have {wanted}: it belongs to another "
        f"index or embedder. Name another with SMELT_COLLECTION, or delete it"
    )


def not_ours(where: str) -> SmeltError:
    return SmeltError(f"{where} is there already, and Smelt did not make it: name another with SMELT_COLLECTION")
