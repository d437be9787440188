from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lib.evals.items import Item
from lib.evals.paired import compare, holm, mcnemar


def of(scores, weights=None) -> dict[str, Item]:
    weights = [None] * len(scores) if weights is None else weights
    return {f"{n:05}": Item("t", f"{n:05}", float(s), w) for n, (s, w) in enumerate(zip(scores, weights, strict=True))}


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (12, 3), (7, 7), (3, 20), (900, 1100)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    exact = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(exact, rel=1e-9)


def test_zeros_and_ones_are_compared_by_mcnemar():
    random = np.random.default_rng(3)
    before, after = random.integers(0, 2, 60), random.integers(0, 2, 60)
    found = compare(of(before), of(after))
    assert found.p == pytest.approx(
        stats.binomtest(int((after > before).sum()), int((after != before).sum())).pvalue, rel=1e-9
    )
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert (found.before, found.after) == pytest.approx((before.mean(), after.mean()))


def test_the_interval_and_p_agree_with_those_of_scipy():
    random = np.random.default_rng(1)
    before = random.normal(0, 1, 80)
    after = before + random.normal(0.1, 0.5, 80)
    found = compare(of(before), of(after))
    difference = after - before
    low, high = stats.t.interval(0.95, 79, difference.mean(), stats.sem(difference))
    assert found.stderr == pytest.approx(stats.sem(difference))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * found.stderr)
    permuted = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(2)
    )
    assert found.p == pytest.approx(permuted.pvalue, abs=0.02)


def test_weights_make_it_the_difference_of_the_ratios():
    random = np.random.default_rng(5)
    weights = random.integers(1, 2000, 40).astype(float)
    before, after = random.normal(2, 1, 40), random.normal(2.3, 1, 40)
    found = compare(of(before, weights), of(after, weights))
    assert found.value == pytest.approx(np.average(after, weights=weights) - np.average(before, weights=weights))
    assert found.low < found.value < found.high
    # The bootstrap's spread is what the delta method says it is.
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(found.stderr, rel=0.15)


def test_noise_is_significant_as_seldom_as_it_should_be():
    random = np.random.default_rng(7)
    pairs = [(random.normal(0, 1, 30), random.normal(0, 1, 30)) for _ in range(60)]
    low = sum(compare(of(before), of(after)).p < 0.05 for before, after in pairs)
    assert low <= stats.binom.ppf(0.999, 60, 0.05)


def test_items_of_one_run_alone_are_counted_and_left_out():
    before, after = of([0.0, 1.0, 1.0]), of([1.0, 1.0, 1.0])
    before["only"] = Item("t", "only", 0.0)
    after |= {"new": Item("t", "new", 0.0), "newer": Item("t", "newer", 0.0)}
    found = compare(before, after)
    assert (found.items, found.only_before, found.only_after) == (3, 1, 2)
    assert found.value == pytest.approx(1 / 3)
    apart = compare({"a": Item("t", "a", 1.0)}, {"b": Item("t", "b", 1.0)})
    assert (apart.items, apart.value, apart.p) == (0, None, None)


def test_a_run_beside_itself_differs_in_nothing():
    scores = of(np.random.default_rng(1).normal(0, 1, 20))
    found = compare(scores, scores)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_holm():
    # By hand: 0.01 * 4, then 0.02 * 3, then 0.03 * 2 = 0.06 and no smaller than before, then 0.2.
    found = holm([0.02, None, 0.2, 0.01, 0.03])
    assert found[1] is None
    assert [found[0], found[2], found[3], found[4]] == pytest.approx([0.06, 0.2, 0.04, 0.06])
