"""Shares and their 95% intervals, from trials that come in clusters (the answers to one question)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from lib.evals.estimates import ratio

_Z = 1.959964  # of 95%


class Interval(NamedTuple):
    """A figure and its 95% interval; None where there was no trial."""

    value: float | None
    low: float | None
    high: float | None
    stderr: float | None

    def as_metric(self) -> dict[str, float | None]:
        return {name: None if number is None else round(number, 4) for name, number in self._asdict().items()}


UNKNOWN = Interval(None, None, None, None)


def wilson(share: float, trials: float) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927); it keeps within 0 and 1, and is right for shares near them."""
    squared = _Z**2 / trials
    middle = (share + squared / 2) / (1 + squared)
    half = _Z / (1 + squared) * math.sqrt(share * (1 - share) / trials + squared / (4 * trials))
    return middle - half, middle + half


def share(clusters: Sequence[Sequence[float]]) -> Interval:
    """The share of successes: 1, 0, or 1/2 for a draw, over all trials of all clusters.

    Trials of one cluster vary together, so that there are fewer independent ones than trials: their effective number is
    the one for which a binomial share has the standard error of the ratio estimator (Korn and Graubard 1998), and never
    less than the clusters, which is also taken where nothing varies.
    """
    clusters = [cluster for cluster in clusters if cluster]
    if not clusters:
        return UNKNOWN
    sizes = [len(cluster) for cluster in clusters]
    estimate = ratio([math.fsum(cluster) for cluster in clusters], sizes)
    value, least, most = estimate.value, len(clusters), sum(sizes)
    effective = value * (1 - value) / estimate.stderr**2 if estimate.stderr else least
    return Interval(value, *wilson(value, min(max(effective, least), most)), estimate.stderr)


def difference(one: Interval, other: Interval) -> Interval:
    """`one` minus `other`, two independent shares (Newcombe 1998, method 10)."""
    if one.value is None or other.value is None:
        return UNKNOWN
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    known = one.stderr is not None and other.stderr is not None
    return Interval(value, low, high, math.hypot(one.stderr, other.stderr) if known else None)
