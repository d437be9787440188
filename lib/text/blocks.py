"""Our documents in datatrove's pipelines, and back.

A datatrove block is a generator over documents. The blocks here run in this process, one after the other (`chain`), so
that memory stays bounded by a batch; any of them also fits into datatrove's own executors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from datatrove.data import Document as Row
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from lib.text.documents import Document, DocumentWriter

logger.disable("datatrove")  # stages say themselves what they do


def rows(documents: Iterable[Document]) -> Iterator[Row]:
    """Documents as datatrove's blocks take them; `to_document` is the way back."""
    for document in documents:
        yield Row(
            text=document.text,
            id=document.id,
            metadata={
                "uri": document.uri,
                "source": document.source,
                "licence": document.licence,
                "records": document.records,
                "hash": document.hash,
            },
        )


def to_document(row: Row) -> Document:
    kept = row.metadata
    return Document(row.id, row.text, kept["uri"], kept["source"], kept["licence"], kept["records"], kept["hash"])


class Rejects:
    """What datatrove calls an exclusion writer: takes what a filter drops, and why, into a `DocumentWriter`."""

    def __init__(self, writer: DocumentWriter, reason: str | None = None) -> None:
        """`reason`: for a filter that gives none itself."""
        self._writer, self._reason = writer, reason
        self.reasons: Counter[str] = Counter()

    def add(self, document: Document, reason: str) -> None:
        self._writer.write(document, reason)
        self.reasons[reason] += 1

    def write(self, row: Row, rank: int = 0) -> None:
        self.add(to_document(row), row.metadata.get("filter_reason") or self._reason)

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *exception: object) -> None:
        """The writer belongs to the stage, which closes it."""


def chain(documents: Iterable[Document], *blocks: PipelineStep, rank: int = 0) -> Iterator[Document]:
    """Run documents through datatrove blocks; `rank` is the number of the shard that they are from."""
    stream = rows(documents)
    for block in blocks:
        stream = block(stream, rank)
    return (to_document(row) for row in stream)
