"""Qdrant: a server, or its local mode in memory, which compares with every vector."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.passage import Passage
from lib.rag.store import not_ours, other_dimension

T = TypeVar("T")

_DIGEST = "smelt_digest"
_BEGUN = ""  # the digest of a collection that was begun and not finished
_TIMEOUT = 30  # seconds
_BATCH = 256
_DOCUMENTS = 500


class Qdrant:
    """`address` None: local mode."""

    def __init__(self, address: str | None, key: str | None, collection: str, dimension: int) -> None:
        from qdrant_client import QdrantClient

        self._where = (
            f"the collection {collection} of the Qdrant server at {address}" if address else "Qdrant in memory"
        )
        self._server = address is not None
        self._collection, self._dimension = collection, dimension
        # The local mode is plain Python over arrays, which change while others read them.
        self._guard: Any = nullcontext() if self._server else threading.Lock()
        self._client = (
            QdrantClient(url=address, api_key=key, timeout=_TIMEOUT, check_compatibility=False)
            if address
            else QdrantClient(":memory:")
        )
        if not self._ask(lambda: self._client.collection_exists(collection)):
            self._create()
            return
        config = self._ask(lambda: self._client.get_collection(collection)).config
        if (config.metadata or {}).get(_DIGEST) is None:
            raise not_ours(self._where)
        if (found := config.params.vectors.size) != dimension:
            raise other_dimension(self._where, found, dimension)

    def _ask(self, request: Callable[[], T]) -> T:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

        try:
            with self._guard:
                return request()
        except ResponseHandlingException as error:
            raise SmeltError(
                f"{self._where} cannot be reached: {error}. Is the server running, and SMELT_QDRANT its address?"
            ) from None
        except (ApiException, QdrantException) as error:
            raise SmeltError(f"{self._where} refuses: {' '.join(str(error).split())[:300]}") from None

    def _create(self) -> None:
        from qdrant_client import models

        vectors = models.VectorParams(size=self._dimension, distance=models.Distance.COSINE)
        self._ask(
            lambda: self._client.create_collection(self._collection, vectors_config=vectors, metadata={_DIGEST: _BEGUN})
        )
        for field in ("document", "source") if self._server else ():
            self._ask(
                lambda field=field: self._client.create_payload_index(
                    self._collection, field, models.PayloadSchemaType.KEYWORD
                )
            )

    def digest(self) -> str | None:
        metadata = self._ask(lambda: self._client.get_collection(self._collection)).config.metadata
        return (metadata or {}).get(_DIGEST) or None

    def clear(self) -> None:
        self._ask(lambda: self._client.delete_collection(self._collection))
        self._create()

    def delete(self, documents: Sequence[str]) -> None:
        from qdrant_client import models

        for at in range(0, len(documents), _DOCUMENTS):
            match = models.MatchAny(any=list(documents[at : at + _DOCUMENTS]))
            chosen = models.Filter(must=[models.FieldCondition(key="document", match=match)])
            self._ask(
                lambda chosen=chosen: self._client.delete(
                    self._collection, models.FilterSelector(filter=chosen), wait=True
                )
            )

    def add(self, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        from qdrant_client import models

        for at in range(0, len(passages), _BATCH):
            points = [
                models.PointStruct(id=_uuid(passage.id), vector=vector.tolist(), payload=asdict(passage))
                for passage, vector in zip(passages[at : at + _BATCH], vectors[at : at + _BATCH], strict=True)
            ]
            self._ask(lambda points=points: self._client.upsert(self._collection, points, wait=True))

    def commit(self, digest: str) -> None:
        self._ask(lambda: self._client.update_collection(self._collection, metadata={_DIGEST: digest}))

    def nearest(self, vector: np.ndarray, limit: int, sources: Collection[str] | None) -> list[str]:
        from qdrant_client import models

        chosen = None
        if sources is not None:
            match = models.MatchAny(any=sorted(sources))
            chosen = models.Filter(must=[models.FieldCondition(key="source", match=match)])
        found = self._ask(
            lambda: self._client.query_points(
                self._collection, query=vector.tolist(), limit=limit, query_filter=chosen, with_payload=["id"]
            )
        )
        return [point.payload["id"] for point in found.points]

    def close(self) -> None:
        self._client.close()


def _uuid(name: str) -> str:
    """Qdrant's ids are numbers or UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"smelt:{name}"))
