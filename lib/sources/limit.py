"""Taking a part of a source that stands for the whole."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from lib.sources.records import Item


def spread(items: Iterable[Item], limit: int) -> list[Item]:
    """`limit` documents from all over the source, in its order: those whose ids have the smallest hashes; all rejects.

    Which ones does not depend on the order of the source, and a larger limit keeps what a smaller one took.
    """
    numbered = enumerate(items)
    rejects: list[tuple[int, Item]] = []

    def kept() -> Iterable[tuple[int, Item]]:
        for number, item in numbered:
            if item[1] is None:
                yield number, item
            else:
                rejects.append((number, item))

    def rank(entry: tuple[int, Item]) -> bytes:
        # Salted: the split into train, val and test is a hash of the bare id, and its smallest ones are all test.
        return hashlib.sha256(f"limit:{entry[1][0].id}".encode()).digest()

    taken = heapq.nsmallest(limit, kept(), key=rank)
    return [item for _, item in sorted([*taken, *rejects], key=lambda entry: entry[0])]
