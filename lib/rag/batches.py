"""Compute vectors in batches of texts of like length, several batches at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BATCH = 16  # more fit into the processor's cache less well: 64 are slower by a fifth


def by_length(
    texts: Sequence[T], lengths: Sequence[int], encode: Callable[[list[T]], np.ndarray], dimension: int, workers: int
) -> np.ndarray:
    """float32 [len(texts), dimension], from `encode` of batches that need little padding.

    Args:
        lengths: of the texts, in tokens or in anything that grows with them.
        workers: threads, each of which computes whole batches by itself. So their number changes no bit of the result
            (threads inside an operation may split sums differently), and it is faster: 77 passages a second on two
            cores, 63 with two threads inside each operation.
    """
    vectors = np.empty((len(texts), dimension), np.float32)
    order = sorted(range(len(texts)), key=lambda row: -lengths[row])  # the longest first: none is left over at the end
    batches = [order[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
    if len(batches) == 1:  # a question: starting threads would take longer
        vectors[order] = encode([texts[row] for row in order])
        return vectors
    with ThreadPoolExecutor(workers) as pool:
        computed = pool.map(lambda batch: encode([texts[row] for row in batch]), batches)
        for batch, rows in zip(batches, computed, strict=True):
            vectors[batch] = rows
    return vectors
