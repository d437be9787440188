"""Passages and their vectors in Chroma on disk, written so that equal passages give equal bytes.

Chroma names collections and segments by random UUIDs, stamps rows with the time, writes metadata in the order of a
random hash, builds its graph of neighbours (HNSW) with threads that race, and writes whenever a database is opened.
None of that fits files that are identified by their content. So:

- `IndexWriter` keeps Chroma from syncing the graph: ids, texts and vectors then all lie in one SQLite database, which
  is rewritten with everything random replaced. The graph, a cache of the vectors, is left out (and with it a pickle).
- `Index` never opens that database but a private copy, in which Chroma builds the graph once: 2 s for 7,500 passages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Collection
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.embed import Embedder
from lib.rag.passage import Hit, Passage

_COLLECTION = "passages"
_DATABASE = "chroma.sqlite3"
_SYNC_THRESHOLD = 1000  # Chroma's default
_NEVER = 2**31 - 1
_EPOCH = "1970-01-01 00:00:00"


def _client(folder: Path) -> Any:
    import chromadb

    return chromadb.PersistentClient(folder, settings=chromadb.Settings(anonymized_telemetry=False))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class IndexWriter:
    """Writes `folder`: chroma/chroma.sqlite3, and index.json with what a reader has to know.

    Args:
        embedder: the one that made the vectors.
        top_k: how many passages a search returns at most.
        min_similarity: the least cosine similarity of those.
    """

    def __init__(self, folder: Path, embedder: Embedder, top_k: int, min_similarity: float) -> None:
        (folder / "chroma").mkdir(parents=True)
        self._folder, self._building = folder, folder / "building"
        self._facts = {
            "embedder": embedder.fingerprint,
            "dimension": embedder.dimension,
            "top_k": top_k,
            "min_similarity": min_similarity,
        }
        self.passages = 0
        self._client = _client(self._building)
        # num_threads: Chroma would record the number of this machine's cores.
        hnsw = {"space": "cosine", "num_threads": 4, "sync_threshold": _NEVER}
        self._collection = self._client.create_collection(
            _COLLECTION, embedding_function=None, configuration={"hnsw": hnsw}
        )

    def add(self, passages: list[Passage], vectors: np.ndarray) -> None:
        """Add passages with their vectors, float32 [len(passages), dimension]; at most Chroma's batch of 5,461."""
        self.passages += len(passages)
        self._collection.add(
            ids=[passage.id for passage in passages],
            embeddings=vectors,
            documents=[passage.text for passage in passages],
            metadatas=[
                {name: value for name, value in asdict(passage).items() if name not in ("id", "text")}
                for passage in passages
            ],
        )

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        if kind is None:
            database = self._folder / "chroma" / _DATABASE
            _canonicalise(self._building / _DATABASE, database)
            facts = {**self._facts, "passages": self.passages, "database": _sha256(database)}
            (self._folder / "index.json").write_text(json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(self._building)


def _canonicalise(database: Path, target: Path) -> None:
    """Copy Chroma's database to `target` with every random or time-dependent value replaced by a fixed one."""
    with closing(sqlite3.connect(database)) as db:
        ((collection, schema),) = db.execute("SELECT id, schema_str FROM collections")
        names = {collection: str(uuid.uuid5(uuid.NAMESPACE_URL, "smelt:collection"))}
        for segment, scope in db.execute("SELECT id, scope FROM segments"):
            names[segment] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"smelt:{scope}"))
        db.create_function("renamed", 1, names.__getitem__)

        # From here on Chroma may build its graph: it will do so in the private copy.
        schema = json.dumps(json.loads(schema), sort_keys=True)
        schema = schema.replace(f'"sync_threshold": {_NEVER}', f'"sync_threshold": {_SYNC_THRESHOLD}')
        db.execute("UPDATE collections SET id = renamed(id), schema_str = ?", [schema])
        db.execute("UPDATE segments SET id = renamed(id), collection = renamed(collection)")
        db.execute("UPDATE max_seq_id SET segment_id = renamed(segment_id)")
        db.execute("UPDATE embeddings SET segment_id = renamed(segment_id), created_at = ?", [_EPOCH])
        # The graph still takes its vectors from the queue; the metadata in it are in `embedding_metadata` already.
        db.execute(
            "UPDATE embeddings_queue SET topic = replace(topic, ?, ?), created_at = ?, metadata = NULL",
            [collection, names[collection], _EPOCH],
        )
        db.execute("DELETE FROM acquire_write")  # traces of write locks
        db.execute("CREATE TEMP TABLE ordered AS SELECT * FROM embedding_metadata ORDER BY id, key")
        db.execute("DELETE FROM embedding_metadata")
        db.execute("INSERT INTO embedding_metadata SELECT * FROM ordered ORDER BY rowid")
        db.commit()
        db.execute("VACUUM INTO ?", [str(target)])


class Index:
    """Searches the index in `folder`.

    Args:
        embedder: has to be the one that the index was built with.
        copies: where the private copy is kept; older ones are removed.

    Raises:
        SmeltError: there is no index, it is damaged, or it was built with another embedder.
    """

    def __init__(self, folder: Path, embedder: Embedder, copies: Path) -> None:
        try:
            facts = json.loads((folder / "index.json").read_text())
        except FileNotFoundError:
            raise SmeltError(f"there is no index in {folder}: run `make repro` first, or `make pull`") from None
        if facts["embedder"] != embedder.fingerprint:
            raise SmeltError(
                f"{folder} was built with another embedder ({facts['embedder'][:12]}, this one is "
                f"{embedder.fingerprint[:12]}), and their vectors cannot be compared: run `dvc repro index`"
            )
        self._embedder = embedder
        self._min_similarity: float = facts["min_similarity"]
        self._top_k: int = facts["top_k"]
        self._passages: int = facts["passages"]
        self._client: Any = None
        self._collection: Any = None
        if facts["passages"]:
            copy = _private_copy(folder / "chroma" / _DATABASE, facts["database"], copies)
            self._client = _client(copy)
            self._collection = self._client.get_collection(_COLLECTION, embedding_function=None)

    def documents(self) -> set[str]:
        """Ids of the documents that have a passage in the index."""
        if self._collection is None:
            return set()
        return {metadata["document"] for metadata in self._collection.get(include=["metadatas"])["metadatas"]}

    def search(self, question: str, top_k: int | None = None, sources: Collection[str] | None = None) -> list[Hit]:
        """The passages nearest to `question`, best first, by cosine similarity; none below `min_similarity`.

        Args:
            top_k: at most so many; None: as many as the index was built with.
            sources: only passages from these; None: all.
        """
        if self._collection is None or (sources is not None and not sources):
            return []
        found = self._collection.query(
            query_embeddings=self._embedder.encode([question]),
            n_results=min(top_k or self._top_k, self._passages),
            where=None if sources is None else {"source": {"$in": sorted(sources)}},
        )
        rows = zip(found["ids"][0], found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True)
        hits = [Hit(Passage(id=id, text=text, **metadata), 1 - distance) for id, text, metadata, distance in rows]
        return [hit for hit in hits if hit.score >= self._min_similarity]

    def document(self, id: str) -> list[Passage]:
        """The passages of a document, in its order; none where the index has no such document."""
        if self._collection is None:
            return []
        found = self._collection.get(where={"document": id}, include=["documents", "metadatas"])
        rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        passages = [Passage(id=id, text=text, **metadata) for id, text, metadata in rows]
        return sorted(passages, key=lambda passage: passage.start)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _private_copy(database: Path, sha256: str, copies: Path) -> Path:
    target = copies / sha256[:16]
    if target.is_dir():
        return target
    copies.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=copies) as folder:
        copy = Path(folder) / "chroma"
        copy.mkdir()
        shutil.copyfile(database, copy / _DATABASE)
        if _sha256(copy / _DATABASE) != sha256:
            raise SmeltError(
                f"{database} is damaged: run `dvc checkout --force models/index`, or `dvc repro --force index`"
            )
        with closing(_client(copy)) as client:
            client.get_collection(_COLLECTION, embedding_function=None).peek(1)  # builds the graph
        for old in copies.glob("[!.]*"):
            shutil.rmtree(old)
        copy.rename(target)
    return target
