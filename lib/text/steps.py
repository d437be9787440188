"""The steps of cleaning as datatrove blocks: each looks at one text after the other, edits it, keeps it or drops it.

A step counts what comes in, what goes out, what it drops and why, and what its edits took away. Counts of the shards of
a source add up to the source's (`add`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document as Row
from datatrove.pipeline.base import PipelineStep

from lib.text.blocks import Rejects


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def is_blank(text: str) -> bool:
    return not text or text.isspace()


class Step(PipelineStep):
    """Base of the steps; a subclass says its `name` (the key in params.yaml) and how to `apply` it."""

    type = "🧹 - CLEAN"
    name = ""

    def __init__(self, rejects: Rejects | None = None) -> None:
        super().__init__()
        self.rejects = rejects
        self.documents_in = self.documents_out = self.bytes_in = self.bytes_out = 0
        self.reasons: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()  # characters, by what they were

    def apply(self, row: Row) -> str | None:
        """Edit `row.text` in place where need be; the reason to drop it, in snake_case, or None to keep it."""
        raise NotImplementedError

    def run(self, data: Iterator[Row], rank: int = 0, world_size: int = 1) -> Iterator[Row]:
        """Pass on what is kept. A text with nothing in it, or nothing left, is dropped by any step as `empty`."""
        for row in data:
            self.documents_in += 1
            self.bytes_in += utf8_bytes(row.text)
            reason = "empty" if is_blank(row.text) else self.apply(row)
            if reason is None and is_blank(row.text):
                reason = "empty"
            if reason is None:
                self.documents_out += 1
                self.bytes_out += utf8_bytes(row.text)
                yield row
                continue
            self.drop(row, reason)

    def drop(self, row: Row, reason: str) -> None:
        self.reasons[reason] += 1
        if self.rejects is not None:
            row.metadata["filter_reason"] = reason
            self.rejects.write(row)

    def tally(self) -> dict[str, Any]:
        """Its counts as plain values; bytes are of UTF-8."""
        return {
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "reasons": dict(sorted(self.reasons.items())),
            "removed": dict(sorted(self.removed.items())),
        }


def add(left: Any, right: Any) -> Any:
    """Two tallies as one: numbers are added, entries that only one of them has are kept, keys keep their order."""
    if isinstance(left, dict):
        return left | {key: add(left[key], value) if key in left else value for key, value in right.items()}
    return left + right
