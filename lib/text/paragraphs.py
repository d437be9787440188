"""Paragraphs that many documents of one source have: banners, disclaimers, signatures.

Each shard counts its own paragraphs; the counts are added up a part of the hashes at a time, so that memory does not
grow with the corpus. What is held is the frequent ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lib.params.text import Paragraphs
from lib.text.documents import read_documents

_BORDER = re.compile(r"(\n[ \t]*\n\s*)")
_COUNT = np.dtype([("paragraph", "<u8"), ("documents", "<u4")])
_PART = 2**20  # counts added up at a time
_BATCH = 2**18  # paragraphs held while a shard is read


def _number(paragraph: str) -> int:
    """Equal for paragraphs that differ in blanks and capitals only."""
    return int.from_bytes(hashlib.sha256(" ".join(paragraph.lower().split()).encode()).digest()[:8], "little")


def _numbers(text: str, params: Paragraphs) -> list[int]:
    """One for each paragraph of at least `min_words` words, 0 for what is shorter and for the blanks between."""
    return [_number(part) if len(part.split()) >= params.min_words else 0 for part in _BORDER.split(text)]


def _summed(counts: Iterable[np.ndarray]) -> np.ndarray:
    """Counts of the same paragraphs added up, ascending by paragraph."""
    everything = np.concatenate([np.empty(0, _COUNT), *counts])
    distinct, place = np.unique(everything["paragraph"], return_inverse=True)
    summed = np.empty(len(distinct), _COUNT)
    summed["paragraph"] = distinct
    summed["documents"] = np.bincount(place, everything["documents"], len(distinct))
    return summed


def count(task: tuple[int, Path], folder: Path, params: Paragraphs) -> None:
    """Count, for the shard `task`, in how many of its documents each paragraph is; write <folder>/<rank>.npy."""
    rank, shard = task
    summed, waiting = np.empty(0, _COUNT), []

    def fold() -> np.ndarray:
        batch = np.empty(len(waiting), _COUNT)
        batch["paragraph"], batch["documents"] = waiting, 1
        waiting.clear()
        return _summed([summed, batch])

    for document in read_documents(shard):
        waiting.extend(set(_numbers(document.text, params)) - {0})
        if len(waiting) >= _BATCH:
            summed = fold()
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{rank:05d}.npy", fold())


def frequent(ranks: Sequence[int], folder: Path, params: Paragraphs) -> frozenset[int]:
    """The paragraphs that at least `documents` documents of these shards, all of one source, have."""
    counts = [np.load(folder / f"{rank:05d}.npy", mmap_mode="r") for rank in ranks]
    parts = sum(map(len, counts)) // _PART + 1
    borders = [part * 2**64 // parts for part in range(1, parts)]
    found: list[int] = []
    slices = [[0, *np.searchsorted(own["paragraph"], np.array(borders, np.uint64)), len(own)] for own in counts]
    for part in range(parts):
        summed = _summed(own[cut[part] : cut[part + 1]] for own, cut in zip(counts, slices, strict=True))
        found += summed["paragraph"][summed["documents"] >= params.documents].tolist()
    return frozenset(found)


def without(text: str, repeated: frozenset[int], params: Paragraphs) -> str:
    """`text` without the paragraphs that are `repeated`, each with the blank lines after it."""
    numbers = _numbers(text, params)
    if repeated.isdisjoint(numbers):
        return text
    parts = _BORDER.split(text)
    kept = (parts[n] + "".join(parts[n + 1 : n + 2]) for n in range(0, len(parts), 2) if numbers[n] not in repeated)
    return "".join(kept).rstrip("\n")
