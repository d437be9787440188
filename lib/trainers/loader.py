"""Batches from memory-mapped token shards or from conversations. A batch is a function of seed and step alone, so a
resumed run needs no loader state, and memory does not grow with the corpus."""

from __future__ import annotations

import functools
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from lib.pipeline.errors import SmeltError

IGNORED = -100  # label of a position without loss, as in torch's cross-entropy
_AHEAD = 4  # batches that are made before they are asked for; several, because a disk has slow moments


class Batch(NamedTuple):
    """B rows of T tokens."""

    inputs: np.ndarray  # (B, T) int64
    labels: np.ndarray  # (B, T) int64, the inputs shifted by one inside each document; IGNORED where there is no loss
    documents: np.ndarray  # (B, T) int32, number of the document within its row, from 0; padding has one of its own


class Batches(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int:
        """Rows in one epoch."""

    def rows(self, indices: np.ndarray) -> Batch: ...


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of rows in an epoch."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(count)


_order = functools.lru_cache(maxsize=2)(order)


def batch_indices(seed: int, step: int, rows: int, count: int) -> np.ndarray:
    """Which rows make up the batch of `step`: epoch after epoch, each in its own order, no row left out."""
    first = step * rows
    places = np.arange(first, first + rows)
    return np.array([_order(seed, place // count, count)[place % count] for place in places])


class TokenBlocks:
    """Rows of `context_length` tokens from the packed shards of one split.

    Raises:
        SmeltError: the split holds less than one row, or another tokenizer made the tokens.
    """

    def __init__(self, folder: Path, split: str, context_length: int, tokenizer_sha256: str) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["tokenizer"] != tokenizer_sha256:
            raise SmeltError(
                f"{folder} was encoded with another tokenizer than models/tokenizer; run `dvc repro encode`"
            )
        self._length = context_length
        self._shards = [
            np.load(folder / split / shard["file"], mmap_mode="r") for shard in index["splits"][split]["shards"]
        ]
        self._ends = np.cumsum([max(0, len(shard) - 1) // context_length for shard in self._shards])
        if not len(self):
            tokens = index["splits"][split]["tokens"]
            raise SmeltError(
                f"the {split} split has {tokens} tokens, fewer than one row of model.context_length "
                f"({context_length}); add documents, or shorten the context"
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def rows(self, indices: np.ndarray) -> Batch:
        blocks = []
        for index in indices:
            shard = int(np.searchsorted(self._ends, index, side="right"))
            start = (int(index) - (int(self._ends[shard - 1]) if shard else 0)) * self._length
            blocks.append(self._shards[shard][start : start + self._length + 1])
        block = np.stack(blocks).astype(np.int64)
        return Batch(block[:, :-1], block[:, 1:], np.zeros_like(block[:, 1:], dtype=np.int32))


class Conversations:
    """Encoded conversations, one a row, padded on the right to the longest of the batch.

    Args:
        encoded: token ids and the mask of tokens that carry loss, for each conversation.
    """

    def __init__(self, encoded: list[tuple[list[int], list[bool]]], pad_token_id: int) -> None:
        self._encoded, self._pad = encoded, pad_token_id

    def __len__(self) -> int:
        return len(self._encoded)

    def rows(self, indices: np.ndarray) -> Batch:
        # Rows of like length side by side, so that micro-batches cut from the batch need little padding.
        chosen = sorted((self._encoded[int(index)] for index in indices), key=lambda row: len(row[0]))
        length = max(len(ids) for ids, _ in chosen) - 1
        inputs = np.full((len(chosen), length), self._pad, dtype=np.int64)
        labels = np.full((len(chosen), length), IGNORED, dtype=np.int64)
        documents = np.ones((len(chosen), length), dtype=np.int32)
        for row, (ids, mask) in enumerate(chosen):
            inputs[row, : len(ids) - 1] = ids[:-1]
            labels[row, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED)
            documents[row, : len(ids) - 1] = 0
        return Batch(inputs, labels, documents)


class Prefetch(Iterator[tuple[int, Batch]]):
    """Steps from `start_step` up to `stop_step` with the batch of each, made in a thread while the loop computes.

        with Prefetch(train, seed, rows, start, stop) as prefetch:
            for step, batch in prefetch: ...

    What the thread raises is raised in the loop, at the step that it belongs to. A thread is enough: nearly all of its
    work is numpy's copying.

    Attributes:
        stall_seconds: how long the loop has waited for batches, so far.
    """

    def __init__(self, batches: Batches, seed: int, batch_rows: int, start_step: int, stop_step: int) -> None:
        self.stall_seconds = 0.0
        self._batches, self._seed, self._batch_rows = batches, seed, batch_rows
        self._steps = iter(range(start_step, stop_step))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()
        for _ in range(_AHEAD):
            self._order()

    def _order(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append((step, self._pool.submit(self._make, step)))

    def _make(self, step: int) -> Batch:
        return self._batches.rows(batch_indices(self._seed, step, self._batch_rows, len(self._batches)))

    def __next__(self) -> tuple[int, Batch]:
        if not self._ahead:
            raise StopIteration
        step, future = self._ahead.popleft()
        before = time.perf_counter()
        batch = future.result()
        self.stall_seconds += time.perf_counter() - before
        self._order()
        return step, batch

    def close(self) -> None:
        """End the thread; what it has made and nobody asked for is dropped."""
        self._ahead.clear()
        self._steps = iter(())
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
