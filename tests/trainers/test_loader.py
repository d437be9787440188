from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.trainers.loader import IGNORED, Conversations, TokenBlocks, batch_indices, order
from lib.trainers.schedules import wsd


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of 100 and 37 tokens, numbered through."""
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "00000.npy", np.arange(100, dtype=np.uint16))
    np.save(tmp_path / "train" / "00001.npy", np.arange(100, 137, dtype=np.uint16))
    index = {
        "tokenizer": "abc",
        "splits": {"train": {"tokens": 137, "shards": [{"file": "00000.npy"}, {"file": "00001.npy"}]}},
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_blocks_follow_the_shards_and_labels_are_shifted(shards: Path) -> None:
    blocks = TokenBlocks(shards, "train", 10, "abc")
    assert len(blocks) == 9 + 3
    inputs, labels, documents = blocks.rows(np.array([0, 8, 9, 11]))
    assert not documents.any()
    assert inputs[:, 0].tolist() == [0, 80, 100, 120]
    assert (labels == inputs + 1).all()
    assert inputs.dtype == np.int64


def test_blocks_of_another_tokenizer_are_refused(shards: Path) -> None:
    with pytest.raises(SmeltError, match="another tokenizer"):
        TokenBlocks(shards, "train", 10, "xyz")


def test_a_context_longer_than_the_corpus_is_refused(shards: Path) -> None:
    with pytest.raises(SmeltError, match="137 tokens, fewer than one row"):
        TokenBlocks(shards, "train", 1000, "abc")


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    indices = np.concatenate([batch_indices(seed=5, step=step, rows=7, count=21) for step in range(6)])
    first, second = indices[:21], indices[21:]
    assert sorted(first) == sorted(second) == list(range(21))
    assert first.tolist() != second.tolist()
    assert first.tolist() == order(5, 0, 21).tolist()


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    later = batch_indices(seed=5, step=4, rows=8, count=30)
    for step in range(4):
        batch_indices(seed=5, step=step, rows=8, count=30)
    assert later.tolist() == batch_indices(seed=5, step=4, rows=8, count=30).tolist()
    assert later.tolist() != batch_indices(seed=6, step=4, rows=8, count=30).tolist()


def test_conversations_carry_loss_where_the_mask_says() -> None:
    conversations = Conversations([([5, 6, 7, 8], [False, False, True, True]), ([1, 2], [False, True])], pad_token_id=9)
    inputs, labels, documents = conversations.rows(np.array([0, 1]))
    assert inputs.tolist() == [[1, 9, 9], [5, 6, 7]]
    assert labels.tolist() == [[2, IGNORED, IGNORED], [IGNORED, 7, 8]]
    assert documents.tolist() == [[0, 1, 1], [0, 0, 0]]  # padding is a document of its own


def test_wsd_rises_stays_and_falls_to_zero() -> None:
    factors = [wsd(step, warmup_steps=10, stable_steps=60, decay_steps=40) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10:61] == [1.0] * 51
    assert all(a > b for a, b in itertools.pairwise(factors[60:]))
    assert factors[-1] == pytest.approx(1 / 40)
    assert sum(factors[60:]) == pytest.approx(sum(range(1, 41)) / 40)
