"""Estimates from a sample, each with its standard error: how far another sample of the same size would likely fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_DIGITS = 6  # further digits depend on the number of threads


@dataclass(frozen=True)
class Estimate:
    value: float | None  # None: nothing was observed
    stderr: float | None  # None: one observation says nothing of the spread

    def as_metric(self) -> dict[str, float | None]:
        return {name: None if number is None else round(number, _DIGITS) for name, number in asdict(self).items()}


def mean(values: Sequence[float]) -> Estimate:
    """The mean and s / sqrt(n). For zeros and ones that is the binomial standard error sqrt(p (1 - p) / (n - 1))."""
    return ratio(values, [1.0] * len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """R = sum(y) / sum(x) over independent units (documents), with its delta-method standard error

        sqrt(n / (n - 1) * sum((y - R x)^2)) / sum(x)

    (Cochran, Sampling Techniques, 3rd ed. 1977, equation 6.13 with no finite-population correction). A unit counts by
    its size, and what varies together inside a unit (the tokens of a document) is not taken for independent evidence.
    """
    count, size = len(numerators), math.fsum(denominators)
    if not size:
        return Estimate(None, None)
    value = math.fsum(numerators) / size
    if count < 2:
        return Estimate(value, None)
    squares = math.fsum((y - value * x) ** 2 for y, x in zip(numerators, denominators, strict=True))
    return Estimate(value, math.sqrt(count / (count - 1) * squares) / size)


def weighted(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """The weighted mean of independent estimates whose weights are fixed: a stratified sample's total."""
    if not estimates:
        return Estimate(None, None)
    shares = [weight / math.fsum(weights) for weight in weights]
    value = math.fsum(share * estimate.value for share, estimate in zip(shares, estimates, strict=True))
    if any(estimate.stderr is None for estimate in estimates):
        return Estimate(value, None)
    squares = math.fsum((share * estimate.stderr) ** 2 for share, estimate in zip(shares, estimates, strict=True))
    return Estimate(value, math.sqrt(squares))
