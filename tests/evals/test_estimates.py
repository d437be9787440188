from __future__ import annotations

import statistics

import numpy as np
import pytest

from lib.evals.estimates import Estimate, mean, ratio, weighted


def test_mean_of_zeros_and_ones_has_the_binomial_error():
    estimate = mean([1.0] * 30 + [0.0] * 70)
    assert estimate.value == pytest.approx(0.3)
    assert estimate.stderr == pytest.approx((0.3 * 0.7 / 99) ** 0.5)


def test_mean_agrees_with_the_standard_library():
    values = [0.5, 2.0, 3.25, 9.0]
    assert mean(values).stderr == pytest.approx(statistics.stdev(values) / 2)


def documents(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, and bits whose rate varies from document to document: their ratio tends to 1.3."""
    sizes = generator.integers(200, 4000, count).astype(float)
    return sizes * generator.normal(1.3, 0.4, count), sizes


def test_ratio_error_agrees_with_the_jackknife():
    bits, sizes = documents(np.random.default_rng(1), 150)
    left_out = (bits.sum() - bits) / (sizes.sum() - sizes)
    jackknife = np.sqrt((len(bits) - 1) / len(bits) * ((left_out - left_out.mean()) ** 2).sum())
    assert ratio(bits, sizes).stderr == pytest.approx(jackknife, rel=0.02)


def test_ratio_error_is_the_spread_of_repeated_samples():
    generator = np.random.default_rng(2)
    estimates = [ratio(*documents(generator, 40)) for _ in range(1500)]
    spread = np.std([estimate.value for estimate in estimates])
    assert np.mean([estimate.stderr for estimate in estimates]) == pytest.approx(spread, rel=0.06)


def test_weighted_adds_errors_in_quadrature():
    estimate = weighted([Estimate(1.0, 0.4), Estimate(3.0, 0.1)], [1, 3])
    assert estimate.value == pytest.approx(2.5)
    assert estimate.stderr == pytest.approx((0.1**2 + 0.075**2) ** 0.5)


def test_what_cannot_be_known_is_null():
    assert mean([]).as_metric() == {"value": None, "stderr": None}
    assert mean([1.0]).as_metric() == {"value": 1.0, "stderr": None}
    assert weighted([], []) == Estimate(None, None)
    assert weighted([Estimate(1.0, None), Estimate(2.0, 0.1)], [1, 1]) == Estimate(1.5, None)
