"""Documents packed into rows: nothing lost, nothing cut that fits, hardly any padding."""

import numpy as np
import pytest

from lib.tokenizer.packing import best_fit, pack


def lengths_like_documents(count: int, seed: int) -> np.ndarray:
    """Log-normal, as the lengths of documents are: from a few tokens to many rows of 64."""
    return np.clip(np.random.default_rng(seed).lognormal(4, 1.2, count), 1, None).astype(np.int64)


def one_by_one(lengths: np.ndarray, capacity: int) -> list[int]:
    """Best fit decreasing as textbooks have it; how full each row is."""
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [row for row, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda row: rooms[row])] -= length
        else:
            rooms.append(capacity - length)
    return sorted(capacity - room for room in rooms)


@pytest.mark.parametrize("capacity", [1, 2, 7, 50, 333])
def test_it_is_best_fit_decreasing(capacity: int) -> None:
    chance = np.random.default_rng(capacity)
    for count in (1, 2, 10, 300):
        for longest in {1, max(1, capacity // 3), capacity}:
            lengths = chance.integers(1, longest, count, endpoint=True)
            rows = best_fit(lengths, capacity)
            assert sorted(np.bincount(rows, lengths).astype(int).tolist()) == one_by_one(lengths, capacity)


@pytest.mark.parametrize(("count", "context_length"), [(1, 64), (500, 64), (500, 16), (300, 2048), (40, 1)])
def test_every_token_is_in_one_piece_and_only_long_documents_are_cut(count: int, context_length: int) -> None:
    lengths = lengths_like_documents(count, seed=1)
    starts, tokens = np.cumsum(lengths) - lengths, int(lengths.sum())
    pieces, rows = pack(starts, tokens, context_length)
    by_start = pieces[np.argsort(pieces[:, 0])].astype(np.int64)
    # End to end they are the shard.
    assert by_start[0, 0] == 0
    assert (by_start[1:, 0] == by_start[:-1].sum(axis=1)).all()
    assert by_start[-1].sum() == tokens
    # A border of two documents is one of two pieces, and a document has as few pieces as can be.
    assert np.isin(starts, by_start[:, 0]).all()
    document = np.searchsorted(starts, by_start[:, 0], side="right") - 1
    assert (np.bincount(document) == -(-lengths // context_length)).all()
    # The rows cut the table of pieces into parts, none empty, none too long.
    assert rows[0] == 0
    assert (np.diff(rows, append=len(pieces)) > 0).all()
    assert np.add.reduceat(pieces[:, 1].astype(np.int64), rows).max() <= context_length


def test_padding_is_small() -> None:
    lengths = lengths_like_documents(5000, seed=2)
    pieces, rows = pack(np.cumsum(lengths) - lengths, int(lengths.sum()), 64)
    full = np.add.reduceat(pieces[:, 1].astype(np.int64), rows)
    assert 1 - full.sum() / (64 * len(rows)) < 0.001
    # Whatever the lengths, two rows that fit into one are not left apart: at most one is half empty or more.
    worst = np.random.default_rng(3).integers(33, 64, 2000)
    full = np.bincount(best_fit(worst, 64), worst)
    assert (full <= 32).sum() <= 1


def test_the_first_rows_are_like_the_rest() -> None:
    lengths = lengths_like_documents(5000, seed=4)
    pieces, rows = pack(np.cumsum(lengths) - lengths, int(lengths.sum()), 64)
    per_row = np.diff(rows, append=len(pieces))
    sampling_error = per_row.std() / np.sqrt(500)
    assert abs(per_row[:500].mean() - per_row.mean()) < 3 * sampling_error


def test_it_is_the_same_every_time() -> None:
    lengths = lengths_like_documents(1000, seed=5)
    one, two = (pack(np.cumsum(lengths) - lengths, int(lengths.sum()), 128) for _ in range(2))
    assert one.pieces.tobytes() == two.pieces.tobytes()
    assert one.rows.tobytes() == two.rows.tobytes()


def test_a_split_without_documents_has_no_rows() -> None:
    pieces, rows = pack(np.zeros(0, np.int64), 0, 64)
    assert pieces.shape == (0, 2)
    assert len(rows) == 0
