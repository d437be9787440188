"""Documents in the order of a key, on disk: memory is that of one part, however many documents there are.

A distribution sort: a key in [0, 1) says in which part of the order a document lies; parts are written as lines of
JSON, then read one after the other and sorted in memory. Every document is written once and read once, so time grows
with the corpus. Keys drawn by a hash fill the parts evenly.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from lib.text.documents import Document

PART_BYTES = 16 * 2**20  # of text; a part is held in memory while it is sorted
_BUFFER_BYTES = 8 * 2**20  # of lines, over all parts, before they are written


class Shuffle:
    """Takes documents with their keys (`add`), then gives them in order (iteration), equal keys by their ids."""

    def __init__(self, folder: Path, size: int) -> None:
        """`folder`: for working files, emptied first. `size`: bytes of text to come, from which the parts follow."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._parts = [folder / f"{part:05d}.jsonl" for part in range(math.ceil(size / PART_BYTES) or 1)]
        self._lines: list[list[bytes]] = [[] for _ in self._parts]
        self._buffered = 0

    def add(self, key: float, document: Document) -> None:
        line = json.dumps([key, *document], ensure_ascii=False).encode() + b"\n"
        self._lines[int(key * len(self._parts))].append(line)
        self._buffered += len(line)
        if self._buffered >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        for path, lines in zip(self._parts, self._lines, strict=True):
            if lines:
                with path.open("ab") as file:
                    file.writelines(lines)
                lines.clear()
        self._buffered = 0

    def __iter__(self) -> Iterator[Document]:
        self._flush()
        for path in self._parts:
            if path.exists():
                with path.open("rb") as file:
                    rows = sorted(map(json.loads, file))
                path.unlink()
                yield from (Document(*row[1:]) for row in rows)
                rows.clear()  # before the next part is read
