"""Token shards on disk, and the rows of the model's context that their documents are packed into.

    <split>/00000.npy         token ids of many documents, each followed by the separator
    <split>/00000.starts.npy  where in that shard each document starts
    <split>/pieces.npy        of all rows, one after the other: where in its shard a piece starts, and its length
    <split>/rows.npy          where in pieces.npy each row starts, and where the last one ends

`np.load(path, mmap_mode="r")` maps a file without reading it. A row lies in one shard; index.json says how many rows
each has. Memory is bounded by the packing of one shard, whatever the size of the corpus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lib.tokenizer.packing import pack


class _ArrayWriter:
    """A .npy file, written as it comes: numpy pads the header so that the length can be filled in at the end.

    Args:
        shape: of one entry; `()` makes an array of numbers.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        self.path, self.length, self._dtype, self._shape = path, 0, dtype, shape
        self._stream = open(path, "wb")  # noqa: SIM115
        self._write_header()

    def _write_header(self) -> None:
        self._stream.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.length, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._stream, header)

    def write(self, entries: np.ndarray) -> None:
        self._stream.write(entries.astype(self._dtype).tobytes())
        self.length += len(entries)

    def close(self) -> None:
        self._write_header()
        self._stream.close()


class SplitWriter:
    """Writes the shards of one split into `folder`, and packs each as it ends.

    A shard ends with the document that takes it to `shard_tokens` or beyond, so that no document is in two shards.
    Without documents there are no files.

    Attributes:
        shards: what index.json says of each: file, tokens, documents, rows.
        pieces: how many there are in all rows; a document that is not cut is one.
        labels: positions of all rows that have a token to predict.
    """

    def __init__(self, folder: Path, dtype: np.dtype, shard_tokens: int, context_length: int) -> None:
        self.shards: list[dict[str, Any]] = []
        self.pieces = self.labels = 0
        self._folder, self._dtype = folder, dtype
        self._shard_tokens, self._context_length = shard_tokens, context_length
        self._starts: list[int] = []
        self._shard: _ArrayWriter | None = None
        self._tables: tuple[_ArrayWriter, _ArrayWriter] | None = None

    def write(self, ids: np.ndarray) -> None:
        """Append a document, its separator included."""
        if self._shard is None:
            self._shard = _ArrayWriter(self._folder / f"{len(self.shards):05d}.npy", self._dtype)
        self._starts.append(self._shard.length)
        self._shard.write(ids)
        if self._shard.length >= self._shard_tokens:
            self._end(self._shard)

    def _end(self, shard: _ArrayWriter) -> None:
        shard.close()
        starts = np.array(self._starts, np.int64)
        np.save(shard.path.with_suffix(".starts.npy"), starts)
        packing = pack(starts, shard.length, self._context_length)
        if self._tables is None:
            self._tables = (
                _ArrayWriter(self._folder / "pieces.npy", np.dtype("<u4"), (2,)),
                _ArrayWriter(self._folder / "rows.npy", np.dtype("<i8")),
            )
        pieces, rows = self._tables
        rows.write(packing.rows + self.pieces)
        pieces.write(packing.pieces)
        self.pieces += len(packing.pieces)
        self.labels += int(packing.pieces[:, 1].sum(dtype=np.int64))
        self.shards.append(
            {
                "file": shard.path.name,
                "tokens": shard.length,
                "documents": len(starts),
                "rows": len(packing.rows),
            }
        )
        self._shard, self._starts = None, []

    def close(self) -> None:
        if self._shard:
            self._end(self._shard)
        if self._tables:
            pieces, rows = self._tables
            rows.write(np.array([self.pieces]))
            pieces.close()
            rows.close()
