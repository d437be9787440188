"""Documents on disk: parquet shards of one schema, the same from `collect` to `mix`, each row with its provenance."""

from __future__ import annotations

import json
import os
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
        ("hash", pa.string()),  # sha256 of the text as it was collected, before any cleaning
    ]
)
REJECT_SCHEMA = SCHEMA.append(pa.field("reason", pa.string()))
SHARD_BYTES = 64 * 2**20  # of text; compressed, a shard is a third of it. A shard is what one process works on
_BATCH = 1000  # documents held at once,
_BATCH_BYTES = 8 * 2**20  # or fewer, of so much text


class Document(NamedTuple):
    id: str
    text: str
    uri: str
    source: str
    licence: str
    records: str = "[]"
    hash: str = ""

    @property
    def kept(self) -> list[dict[str, Any]]:
        return json.loads(self.records)


class ShardWriter:
    """Writes documents into one parquet file with memory bounded by a batch; the file appears when it is whole.

    `reject_reasons=True` adds the column `reason`; give it to `write` then.
    """

    def __init__(self, path: Path, reject_reasons: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._schema = path, REJECT_SCHEMA if reject_reasons else SCHEMA
        self._partial = path.with_name(f".{path.name}.partial")
        self._rows: list[tuple] = []
        self._writer = pq.ParquetWriter(self._partial, self._schema, compression="zstd")
        self._batch_bytes = self.documents = self.bytes = 0

    def write(self, document: Document, reason: str | None = None) -> None:
        size = len(document.text.encode())
        self.documents, self.bytes, self._batch_bytes = self.documents + 1, self.bytes + size, self._batch_bytes + size
        self._rows.append((*document, reason) if reason is not None else tuple(document))
        if len(self._rows) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        self._writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=self._schema))
        self._rows.clear()
        self._batch_bytes = 0

    def close(self) -> None:
        if self._rows or not self.documents:
            self._flush()
        self._writer.close()
        os.replace(self._partial, self._path)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self._partial.unlink()


class DocumentWriter:
    """Writes documents into `folder`/00000.parquet, 00001.parquet, ... of SHARD_BYTES of text each.

    `reject_reasons=True` adds the column `reason`; give it to `write` then. An empty folder gets one empty shard, so
    that whoever reads it finds the schema.
    """

    def __init__(self, folder: Path, reject_reasons: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._reject_reasons = folder, reject_reasons
        self._shard: ShardWriter | None = None
        self._shards = 0
        self.documents = self.bytes = 0

    def _open(self) -> ShardWriter:
        if self._shard is None:
            self._shard = ShardWriter(self._folder / f"{self._shards:05d}.parquet", self._reject_reasons)
            self._shards += 1
        return self._shard

    def write(self, document: Document, reason: str | None = None) -> None:
        shard = self._open()
        before = shard.bytes
        shard.write(document, reason)
        self.documents, self.bytes = self.documents + 1, self.bytes + shard.bytes - before
        if shard.bytes >= SHARD_BYTES:
            shard.close()
            self._shard = None

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shard is not None or self._shards == 0:
            self._open().close()


def shards(folder: Path) -> list[Path]:
    """The parquet files of `folder`, in order; a shard is its own only one."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]


def read_table(folder: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows below `folder` (or of one shard), shard by shard in name order, as record batches."""
    for path in shards(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # a batch over several would not be bounded in bytes
                yield from file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=columns, use_threads=False)


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
