"""Two runs on the same items: is the difference more than noise?

Both tests draw from the items that both runs have, so that what makes an item hard for both takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.evals.items import Item, paired_difference

_DRAWS = 10_000
_BATCH = 500  # draws at once: memory stays at some MiB for tens of thousands of items
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much higher `after` scores than `before`."""

    items: int
    only_before: int  # items that the other run does not have
    only_after: int
    before: float | None  # weighted means over the shared items
    after: float | None
    value: float | None
    stderr: float | None
    low: float | None  # 95% interval of the difference
    high: float | None
    p: float | None  # of so large a difference, were there none


def compare(before: Mapping[str, Item], after: Mapping[str, Item], seed: int = 0) -> Difference:
    """The weighted mean difference on the shared items.

    The interval is the bootstrap's over items (percentiles of 10,000 draws; Efron and Tibshirani 1993, chapter 13); p
    is that of the sign-flip test: were there no difference, each item's could as well be the other way round (Fisher
    1935). For scores of 0 and 1 that is McNemar's exact test, by its formula and not by draws.
    """
    shared = sorted(before.keys() & after.keys())
    lost, new = len(before) - len(shared), len(after) - len(shared)
    if not shared:
        return Difference(0, lost, new, None, None, None, None, None, None, None)
    weights = np.array([1.0 if before[name].weight is None else before[name].weight for name in shared])
    old = np.array([before[name].score for name in shared])
    now = np.array([after[name].score for name in shared])
    estimate, _ = paired_difference(dict(before), dict(after))
    low, high = _bootstrap(now - old, weights, seed)
    if set(old) | set(now) <= {0.0, 1.0} and len(set(weights)) == 1:
        p = mcnemar(int((now > old).sum()), int((now < old).sum()))
    else:
        p = _sign_flip(weights * (now - old), seed)
    mean = lambda scores: float(np.average(scores, weights=weights))  # noqa: E731
    return Difference(len(shared), lost, new, mean(old), mean(now), estimate.value, estimate.stderr, low, high, p)


def _bootstrap(differences: np.ndarray, weights: np.ndarray, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    means = []
    for _ in range(_DRAWS // _BATCH):
        drawn = random.integers(0, len(weights), (_BATCH, len(weights)))
        means.append((differences * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _sign_flip(differences: np.ndarray, seed: int) -> float:
    differences = differences[differences != 0]
    observed = abs(differences.sum())
    random = np.random.default_rng(seed)
    as_large = 0
    for _ in range(_DRAWS // _BATCH):
        signs = random.integers(0, 2, (_BATCH, len(differences))) * 2 - 1
        as_large += int((np.abs(signs @ differences) >= observed * (1 - 1e-9)).sum())
    return (as_large + 1) / (_DRAWS + 1)  # the observed one is one of the draws (Davison and Hinkley 1997, 4.11)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of so uneven a split of the items on which the runs differ (McNemar 1947)."""
    # Exact in integers: C(n, k) alone is beyond a float for n of some thousands.
    count, least = gained + lost, min(gained, lost)
    term = total = 1
    for k in range(least):
        term = term * (count - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**count)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for there being several (Holm 1979); None stays None."""
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected
