"""The order of rows: a shuffle like any other, without a table of it."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from lib.trainers.order import batch_indices, shuffled


def whole(count: int, seed: int, epoch: int = 0) -> np.ndarray:
    return shuffled(np.arange(count), count, seed, epoch)


@pytest.mark.parametrize("count", [*range(1, 40), 255, 256, 257, 1000, 4095, 4096, 4097, 10**5, 2**17 - 1])
def test_every_row_comes_once(count: int) -> None:
    for seed in (0, 1, 2**31 - 1):
        assert (np.sort(whole(count, seed, epoch=seed % 5)) == np.arange(count)).all()


@pytest.mark.parametrize("count", [10**8, 2**32 + 1, 10**12])
def test_any_row_of_very_many_is_found_without_the_others(count: int) -> None:
    places = np.random.default_rng(1).integers(0, count, 20_000)
    tracemalloc.start()
    rows = shuffled(places, count, seed=1, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    assert 0 <= rows.min() <= rows.max() < count
    assert len(np.unique(rows)) == len(np.unique(places))
    assert abs(rows.mean() / count - 0.5) < 0.01


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_of_few_rows_are_equally_frequent(count: int) -> None:
    orders, times = math.factorial(count), 40
    seen = Counter(tuple(whole(count, seed)) for seed in range(times * orders))
    chi_squared = sum((number - times) ** 2 / times for number in seen.values()) + times * (orders - len(seen))
    assert chi_squared < orders - 1 + 4 * math.sqrt(2 * (orders - 1))


def test_places_tell_nothing_of_rows() -> None:
    count = 2**14
    for seed in range(3):
        rows = whole(count, seed)
        assert abs(np.corrcoef(np.arange(count), rows)[0, 1]) < 4 / math.sqrt(count)
        assert abs(np.corrcoef(rows[1:], rows[:-1])[0, 1]) < 4 / math.sqrt(count)
        blocks = np.histogram2d(np.arange(count), rows, bins=16)[0]
        expected = count / 256
        assert ((blocks - expected) ** 2 / expected).sum() < 225 + 4 * math.sqrt(2 * 225)
    # Two epochs, or two seeds, agree on as few rows as chance has it: one on average.
    assert (whole(count, 1, 0) == whole(count, 1, 1)).sum() < 8
    assert (whole(count, 1, 0) == whole(count, 2, 0)).sum() < 8


def test_batches_run_through_one_epoch_after_the_other() -> None:
    indices = np.concatenate([batch_indices(seed=5, step=step, rows=7, count=21) for step in range(6)])
    assert indices.tolist() == [*whole(21, 5, 0), *whole(21, 5, 1)]
    assert indices[:21].tolist() != indices[21:].tolist()
    # A batch may hold the end of one epoch and the beginning of the next, or several whole ones.
    assert batch_indices(seed=5, step=0, rows=50, count=21).tolist()[:42] == indices.tolist()


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    """So it does not matter who asks, in which order, or into how many parts the batches are cut."""
    later = batch_indices(seed=5, step=4, rows=8, count=30)
    halves = [batch_indices(seed=5, step=step, rows=4, count=30) for step in (9, 8)]
    assert later.tolist() == [*halves[1], *halves[0]]
    assert later.tolist() != batch_indices(seed=6, step=4, rows=8, count=30).tolist()


def test_the_order_stays_what_it_was() -> None:
    """With another order, a run would not continue from its checkpoint to what it would have been."""
    assert batch_indices(seed=1, step=3, rows=8, count=20_792).tolist() == [
        19185, 12123, 18182, 5316, 221, 8685, 18751, 14182
    ]  # fmt: skip
