"""In which order rows are trained on: shuffled anew in every epoch, without a table of the order.

A table would take 800 MB for 100 million rows. Here the row at any place of an epoch is computed by itself, with a
keyed bijection: a Feistel network on pairs of numbers below `side`, of which there are just enough for all rows; a pair
that stands for no row is sent through again until it does (cycle walking). Both are from Black and Rogaway 2002,
"Ciphers with Arbitrary Finite Domains" (https://eprint.iacr.org/2001/012).
"""

from __future__ import annotations

import math

import numpy as np

# With 6, the 120 orders of 5 rows are not equally frequent over 20,000 seeds (chi-squared, p = 5e-5); from 8 they are.
ROUNDS = 12


def _scramble(values: np.ndarray) -> np.ndarray:
    """A random-looking function of 64 bits: the finaliser of SplitMix64 (https://doi.org/10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shuffled(places: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """The rows at these places of an epoch.

    Args:
        places: (N,) integers in [0, count).

    Returns:
        (N,) int64 in [0, count); over all places, each row once.
    """
    coin, *keys = np.random.SeedSequence([seed, epoch]).generate_state(1 + ROUNDS, np.uint64)
    side = np.uint64(math.isqrt(count - 1) + 1)
    rows = places.astype(np.uint64)
    walking = np.arange(len(rows))
    while len(walking):
        left, right = np.divmod(rows[walking], side)
        for key in keys:
            left, right = right, (left + _scramble(right ^ key) % side) % side
        rows[walking] = left * side + right
        walking = walking[rows[walking] >= count]
    if coin % 2 and count > 1:  # a network with an odd side makes even permutations only; half of all are odd
        rows = np.where(rows < 2, 1 - rows, rows)
    return rows.astype(np.int64)


def batch_indices(seed: int, step: int, rows: int, count: int) -> np.ndarray:
    """Which rows make up the batch of `step`: epoch after epoch, each in its own order, no row left out.

    It depends on its arguments alone, so that no position has to be kept, and any process can compute any batch.

    Args:
        rows: rows of a batch.
        count: rows of an epoch.

    Returns:
        (rows,) int64 in [0, count).
    """
    epochs, places = np.divmod(np.arange(step * rows, (step + 1) * rows), count)
    indices = np.empty(rows, np.int64)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        indices[now] = shuffled(places[now], count, seed, int(epoch))
    return indices
