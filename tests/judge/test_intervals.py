from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lib.judge.intervals import UNKNOWN, difference, share, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 10), (10, 10), (71, 100)])
def test_wilson_is_that_of_scipy(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_single_trials_give_the_plain_interval():
    found = share([[1.0]] * 7 + [[0.0]] * 3)
    # The standard error has n - 1 in it, and the effective number is 9 and not 10, but no less than the 10 clusters.
    assert (found.low, found.high) == pytest.approx(wilson(0.7, 10))
    assert found.value == 0.7


def test_trials_that_always_go_together_count_once():
    together = share([[1.0] * 4] * 7 + [[0.0] * 4] * 3)
    assert (together.low, together.high) == pytest.approx(wilson(0.7, 10))


def test_independent_trials_count_each():
    clusters = np.random.default_rng(1).binomial(1, 0.7, (400, 4)).astype(float).tolist()
    found = share(clusters)
    low, high = wilson(found.value, 1600)
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


def test_all_right_is_not_certainty():
    assert share([[1.0, 1.0, 1.0]] * 8).low == pytest.approx(wilson(1.0, 8)[0])
    assert share([[1.0]] * 8).low < 0.7


def test_without_trials_nothing_is_known():
    assert share([[], []]) == UNKNOWN
    assert difference(share([]), share([[1.0]])) == UNKNOWN


def test_difference_is_newcombes():
    # 56/70 - 48/80 = 0.2, 95% interval 0.0524 to 0.3339 (Newcombe 1998, table II, method 10).
    one, other = share([[1.0]] * 56 + [[0.0]] * 14), share([[1.0]] * 48 + [[0.0]] * 32)
    found = difference(one, other)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
