"""Documents on disk: parquet shards of one schema, the same from `collect` to `mix`, each row with its provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        (
            "id",
            pa.string(),
        ),  # <source>/<path inside the source>[#<number>]; unique over all sources, stable under edits
        ("text", pa.string()),
        ("uri", pa.string()),  # where a reader finds the original: pypi:<name>==<version>/<member>, or a path
        ("source", pa.string()),  # key of params.sources
        ("licence", pa.string()),  # SPDX id
        ("records", pa.string()),  # JSON list of objects: the fields kept beside the text (titles, questions, answers)
    ]
)
REJECT_SCHEMA = SCHEMA.append(pa.field("reason", pa.string()))
SHARD_BYTES = 256 * 2**20  # of text; compressed, a shard is a third of it
_BATCH = 1000
_BATCH_BYTES = 32 * 2**20  # of text, so that a batch of long documents does not fill the memory


class Document(NamedTuple):
    id: str
    text: str
    uri: str
    source: str
    licence: str
    records: str = "[]"

    @property
    def kept(self) -> list[dict[str, Any]]:
        return json.loads(self.records)


class DocumentWriter:
    """Writes documents into `folder`/00000.parquet, 00001.parquet, ... with memory bounded by a batch.

    `reject_reasons=True` adds the column `reason`; give it to `write` then. An empty folder gets one empty shard, so
    that whoever reads it finds the schema.
    """

    def __init__(self, folder: Path, reject_reasons: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema = folder, REJECT_SCHEMA if reject_reasons else SCHEMA
        self._rows: list[tuple] = []
        self._writer: pq.ParquetWriter | None = None
        self._shards = self._shard_bytes = self._batch_bytes = 0
        self.documents = self.bytes = 0

    def write(self, document: Document, reason: str | None = None) -> None:
        size = len(document.text.encode())
        self.documents, self.bytes, self._shard_bytes = self.documents + 1, self.bytes + size, self._shard_bytes + size
        self._batch_bytes += size
        self._rows.append((*document, reason) if reason is not None else tuple(document))
        if len(self._rows) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
            self._flush()
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _flush(self) -> None:
        if self._writer is None:
            path = self._folder / f"{self._shards:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        self._writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=self._schema))
        self._rows.clear()
        self._batch_bytes = 0

    def _end_shard(self) -> None:
        if self._rows or self._writer is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._shards, self._shard_bytes = None, self._shards + 1, 0

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._rows or self._writer is not None or self._shards == 0:
            self._end_shard()


def shards(folder: Path) -> list[Path]:
    """The parquet files of `folder`, in order; a shard is its own only one."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]


def read_table(folder: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows below `folder` (or of one shard), shard by shard in name order, as record batches."""
    for path in shards(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # a batch would be filled up from several
                yield from file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=columns)


def read_documents(folder: Path) -> Iterator[Document]:
    """Every document of the shards in `folder` (or of one shard), in order, with memory bounded by a batch."""
    for batch in read_table(folder, list(Document._fields)):
        yield from (Document(**row) for row in batch.to_pylist())


def count_documents(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in shards(folder))


def measure(folder: Path) -> tuple[int, int]:
    """How many documents `folder` has, and the bytes of their text in UTF-8."""
    sizes = [pc.sum(pc.binary_length(batch["text"])).as_py() or 0 for batch in read_table(folder, ["text"])]
    return count_documents(folder), sum(sizes)


def write_documents(folder: Path, documents: Iterable[Document]) -> DocumentWriter:
    """Write all `documents`; the writer that comes back knows their number and bytes."""
    with DocumentWriter(folder) as writer:
        for document in documents:
            writer.write(document)
    return writer
