"""Batches from packed shards and conversations, and their making ahead of the loop."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.tokenizer.shards import SplitWriter
from lib.trainers.loader import _AHEAD, IGNORED, Batch, Conversations, Prefetch, TokenBlocks
from lib.trainers.order import batch_indices

CONTEXT, SEPARATOR = 16, 0
LENGTHS = [*np.random.default_rng(1).geometric(0.07, 60), 1, 15, 16, 17, 48, 200]  # separators included


def make(folder: Path, shard_tokens: int) -> Path:
    """Documents in which every token is another number, counted through; val has none."""
    splits = {}
    for name, lengths in (("train", LENGTHS), ("val", [])):
        (folder / name).mkdir()
        writer, next_token = SplitWriter(folder / name, np.dtype("<u2"), shard_tokens, CONTEXT), 1
        for length in lengths:
            writer.write(np.array([*range(next_token, next_token + length - 1), SEPARATOR], np.uint16))
            next_token += length - 1
        writer.close()
        splits[name] = {"shards": writer.shards}
    index = {"tokenizer": "abc", "context_length": CONTEXT, "separator": SEPARATOR, "splits": splits}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(params=[10**6, 100], ids=["one shard", "many shards"])
def blocks(request: pytest.FixtureRequest, tmp_path: Path) -> TokenBlocks:
    return TokenBlocks(make(tmp_path, request.param), "train", CONTEXT, "abc")


def test_every_token_is_an_input_once_and_a_label_once(blocks: TokenBlocks) -> None:
    batch = blocks.rows(np.arange(len(blocks)))
    assert [part.dtype for part in batch] == [np.int64, np.int64, np.int32]
    assert {part.shape for part in batch} == {(len(blocks), CONTEXT)}
    tokens = sum(length - 1 for length in LENGTHS)
    once = Counter(range(1, tokens + 1)) + Counter({SEPARATOR: len(LENGTHS)})
    carries_loss = batch.labels != IGNORED
    assert Counter(batch.labels[carries_loss].tolist()) == once
    assert Counter(batch.inputs[carries_loss].tolist()) == once


def test_no_number_stands_for_two_documents(blocks: TokenBlocks) -> None:
    ends = np.cumsum([length - 1 for length in LENGTHS])  # a document's tokens are (ends[n - 1], ends[n]]
    for inputs, labels, documents in zip(*blocks.rows(np.arange(len(blocks))), strict=True):
        padding = labels == IGNORED
        # From 0 without a gap, padding last with a number of its own.
        assert documents[0] == 0
        assert set(np.diff(documents)) <= {0, 1}
        assert not set(documents[padding]) & set(documents[~padding])
        assert len(set(documents[padding])) <= 1
        assert (inputs[padding] == SEPARATOR).all()
        for number in set(documents[~padding]):
            piece = documents == number
            tokens = [token for token in (*inputs[piece], *labels[piece]) if token != SEPARATOR]
            assert len(set(np.searchsorted(ends, tokens))) <= 1
            # Labels are the inputs shifted by one.
            assert inputs[piece][1:].tolist() == labels[piece][:-1].tolist()
            assert all(b in (a + 1, SEPARATOR) for a, b in zip(inputs[piece], labels[piece], strict=True) if a)


def test_a_long_document_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    blocks = TokenBlocks(make(tmp_path, 10**6), "train", CONTEXT, "abc")
    first = sum(length - 1 for length in LENGTHS[:-1]) + 1  # of the last document, 200 tokens with its separator
    batch = blocks.rows(np.arange(len(blocks)))
    rows = sorted(np.flatnonzero(batch.labels[:, -1] >= first), key=lambda row: batch.labels[row, 0])
    assert len(rows) == 200 // CONTEXT
    assert batch.inputs[rows[0], :2].tolist() == [SEPARATOR, first]
    for row, following in pairwise(rows):
        assert batch.inputs[following, 0] == batch.labels[row, -1]


def test_rows_come_in_the_order_asked_for(blocks: TokenBlocks) -> None:
    everything = blocks.rows(np.arange(len(blocks)))
    chosen = np.array([3, 0, len(blocks) - 1, 3])
    for part, whole in zip(blocks.rows(chosen), everything, strict=True):
        assert (part == whole[chosen]).all()


@pytest.mark.parametrize(
    ("split", "context_length", "tokenizer", "message"),
    [
        ("train", CONTEXT, "xyz", "another tokenizer"),
        ("train", 2 * CONTEXT, "abc", "rows of 16 tokens, and model.context_length is 32; run `dvc repro encode`"),
        ("train", CONTEXT // 2, "abc", "rows of 16 tokens, and model.context_length is 8; run `dvc repro encode`"),
        ("val", CONTEXT, "abc", "the val split .* has no documents"),
    ],
)
def test_shards_made_for_something_else_are_refused(
    tmp_path: Path, split: str, context_length: int, tokenizer: str, message: str
) -> None:
    with pytest.raises(SmeltError, match=message):
        TokenBlocks(make(tmp_path, 10**6), split, context_length, tokenizer)


def test_conversations_carry_loss_where_the_mask_says() -> None:
    conversations = Conversations([([5, 6, 7, 8], [False, False, True, True]), ([1, 2], [False, True])], pad_token_id=9)
    inputs, labels, documents = conversations.rows(np.array([1, 0]))
    assert inputs.tolist() == [[5, 6, 7], [1, 9, 9]]
    assert labels.tolist() == [[IGNORED, 7, 8], [2, IGNORED, IGNORED]]
    assert documents.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert [part.dtype for part in (inputs, labels, documents)] == [np.int64, np.int64, np.int32]


def test_conversations_of_a_batch_share_rows_and_stay_apart() -> None:
    chance = np.random.default_rng(1)
    encoded = [
        ([1000 * number + place for place in range(length)], (chance.random(length) < 0.4).tolist())
        for number, length in enumerate(chance.integers(2, 30, 40), start=1)
    ]
    chosen = chance.permutation(40)[:16]
    inputs, labels, documents = Conversations(encoded, pad_token_id=0).rows(chosen)
    lengths = [len(encoded[index][0]) - 1 for index in chosen]
    assert inputs.shape[1] == max(lengths)
    assert len(inputs) < 13
    found = {}
    for row in range(len(inputs)):
        for number in set(documents[row].tolist()):
            piece = documents[row] == number
            found[int(inputs[row][piece][0]) // 1000] = (inputs[row][piece], labels[row][piece])
    padding, padded = found.pop(0, (np.zeros(0), np.zeros(0)))
    assert not padding.any()
    assert (padded == IGNORED).all()
    assert sorted(found) == sorted(chosen + 1)
    for number, (read, learnt) in found.items():
        ids, mask = encoded[number - 1]
        assert read.tolist() == ids[:-1]
        assert learnt.tolist() == [token if learn else IGNORED for token, learn in zip(ids[1:], mask[1:], strict=True)]


class Numbers:
    """Batches whose labels are the indices; `before` is called first, with how many were made."""

    def __init__(self, before: Callable[[int], None]) -> None:
        self.made, self._before = 0, before

    def __len__(self) -> int:
        return 30

    def rows(self, indices: np.ndarray) -> Batch:
        self._before(self.made)
        self.made += 1
        return Batch(indices[:, None], indices[:, None], np.zeros((len(indices), 1), np.int32))


@pytest.mark.parametrize("start", [0, 3, 17, 20])
def test_prefetched_batches_are_those_of_their_steps(start: int) -> None:
    """Also from the middle on, as when a run is resumed."""
    with Prefetch(Numbers(lambda made: None), 7, 4, start, 20) as prefetch:
        found = [(step, batch.labels[:, 0].tolist()) for step, batch in prefetch]
    assert found == [(step, batch_indices(7, step, 4, 30).tolist()) for step in range(start, 20)]


def test_what_the_thread_raises_is_raised_at_its_step() -> None:
    def fail(made: int) -> None:
        if made == 6:
            raise OSError("the disk is gone")

    with Prefetch(Numbers(fail), 7, 4, 0, 20) as prefetch:
        assert [next(prefetch)[0] for _ in range(6)] == list(range(6))
        with pytest.raises(OSError, match="the disk is gone"):
            next(prefetch)


def test_it_runs_ahead_and_not_too_far() -> None:
    batches = Numbers(lambda made: None)
    with Prefetch(batches, 7, 4, 0, 100) as prefetch:
        next(prefetch)
        before = time.monotonic()
        while batches.made < 1 + _AHEAD and time.monotonic() < before + 20:
            time.sleep(0.001)
        time.sleep(0.02)
        assert batches.made == 1 + _AHEAD


def test_waiting_is_counted() -> None:
    """Five batches that take 20 ms each, asked for at once."""
    with Prefetch(Numbers(lambda made: time.sleep(0.02)), 7, 4, 0, 5) as prefetch:
        for _ in prefetch:
            pass
    assert prefetch.stall_seconds > 0.05


def test_it_ends_when_the_loop_does() -> None:
    threads = set(threading.enumerate())
    with Prefetch(Numbers(lambda made: None), 7, 4, 0, 10**9) as prefetch:
        next(prefetch)
    assert set(threading.enumerate()) == threads
    assert next(prefetch, None) is None
