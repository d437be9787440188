"""Batches from memory-mapped, packed token shards or from conversations, made ready while the device computes.

A batch is a function of seed and step alone, so that a resumed run needs no loader state and any number of processes
sees the same ones. Memory does not grow with the corpus.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.tokenizer.packing import best_fit
from lib.trainers.order import batch_indices

IGNORED = -100  # label of a position without loss, as in torch's cross-entropy
_AHEAD = 4  # batches that are made before they are asked for; several, because a disk has slow moments


class Batch(NamedTuple):
    """B rows of T tokens."""

    inputs: np.ndarray  # (B, T) int64
    labels: np.ndarray  # (B, T) int64: the token that follows the input in its document, IGNORED where there is no loss
    documents: np.ndarray  # (B, T) int32: number of the document within its row, from 0; padding has one of its own

    @property
    def counted(self) -> int:
        """Tokens with loss: what a summed loss is divided by."""
        return int((self.labels != IGNORED).sum())


class Batches(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int:
        """Rows, or conversations, in one epoch."""

    def rows(self, indices: np.ndarray) -> Batch: ...


class TokenBlocks:
    """The rows that the documents of one split were packed into (see lib/tokenizer/shards.py).

    Every token of the split is a label once, and its input is the token before: for the first of a document this is the
    separator, as when the trained model is asked for text. A document cut into several rows loses no label either.

    Args:
        folder: data/tokens.

    Raises:
        SmeltError: another tokenizer made the tokens, or they are packed for another context, or there are none.
    """

    def __init__(self, folder: Path, split: str, context_length: int, tokenizer_sha256: str) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["tokenizer"] != tokenizer_sha256:
            raise SmeltError(
                f"{folder} was encoded with another tokenizer than models/tokenizer; run `dvc repro encode`"
            )
        if index["context_length"] != context_length:
            raise SmeltError(
                f"{folder} is packed into rows of {index['context_length']} tokens, and model.context_length is "
                f"{context_length}; run `dvc repro encode`, or set it back to {index['context_length']}"
            )
        shards = index["splits"][split]["shards"]
        if not shards:
            raise SmeltError(
                f"the {split} split of {folder} has no documents; add some, or hold out more (mix.val, mix.test)"
            )
        self._length, self._separator = context_length, index["separator"]
        # As plain arrays over the same maps: to copy 200 tokens takes 0.3 µs so, and 1.6 µs of an np.memmap.
        map_file = lambda name: np.asarray(np.load(folder / split / name, mmap_mode="r"))  # noqa: E731
        self._shards = [map_file(shard["file"]) for shard in shards]
        self._ends = np.cumsum([shard["rows"] for shard in shards])
        self._pieces, self._rows = map_file("pieces.npy"), map_file("rows.npy")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: np.ndarray) -> Batch:
        shape = (len(indices), self._length)
        inputs, labels = np.full(shape, self._separator, np.int64), np.full(shape, IGNORED, np.int64)
        documents = np.zeros(shape, np.int32)
        for row, (index, shard) in enumerate(zip(indices, np.searchsorted(self._ends, indices, "right"), strict=True)):
            tokens, place = self._shards[shard], 0
            pieces = self._pieces[self._rows[index] : self._rows[index + 1]].tolist()
            for number, (start, length) in enumerate(pieces):
                labels[row, place : place + length] = tokens[start : start + length]
                # Before the first token of a document comes the separator that ends another, the shard's last one at 0.
                inputs[row, place] = tokens[start - 1]
                inputs[row, place + 1 : place + length] = tokens[start : start + length - 1]
                documents[row, place : place + length] = number
                place += length
            documents[row, place:] = len(pieces)
        return Batch(inputs, labels, documents)


class Conversations:
    """Encoded conversations. Those of a batch are packed, best fit, into rows as long as the longest of them.

    So a batch has fewer rows than conversations, which are what is counted everywhere else. Padding one to a row makes
    44% of the positions of a batch of 8 padding, and packing 17% (the manual's questions, 73 tokens on average).

    Args:
        encoded: token ids, two at least, and the mask of tokens that carry loss, for each conversation.
    """

    def __init__(self, encoded: Sequence[tuple[Sequence[int], Sequence[bool]]], pad_token_id: int) -> None:
        self._encoded, self._pad = encoded, pad_token_id

    def __len__(self) -> int:
        return len(self._encoded)

    def rows(self, indices: np.ndarray) -> Batch:
        """The conversations of these numbers, packed."""
        chosen = [self._encoded[int(index)] for index in indices]
        lengths = np.array([len(ids) - 1 for ids, _ in chosen])
        rows_of = best_fit(lengths, int(lengths.max()))
        shape = (int(rows_of.max()) + 1, int(lengths.max()))
        inputs, labels = np.full(shape, self._pad, np.int64), np.full(shape, IGNORED, np.int64)
        documents = np.zeros(shape, np.int32)
        places, numbers = np.zeros(len(inputs), np.int64), np.zeros(len(inputs), np.int32)
        for (ids, mask), length, row in zip(chosen, lengths, rows_of, strict=True):
            there = slice(places[row], places[row] + length)
            inputs[row, there] = ids[:-1]
            labels[row, there] = np.where(mask[1:], ids[1:], IGNORED)
            documents[row, there] = numbers[row]
            places[row] += length
            numbers[row] += 1
        for row, place in enumerate(places):
            documents[row, place:] = numbers[row]
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
