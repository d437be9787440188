from __future__ import annotations

import itertools

import pytest

from lib.trainers.schedules import decay_steps, schedule


def test_wsd_rises_stays_and_falls_to_zero() -> None:
    factor = schedule("wsd", warmup_steps=4, stable_steps=10, decay_steps=5)
    rising, flat, falling = [0.2, 0.4, 0.6, 0.8], [1.0] * 6, [1.0, 0.8, 0.6, 0.4, 0.2]
    assert [factor(step) for step in range(15)] == pytest.approx(rising + flat + falling)
    assert factor(15) == 0.0


def test_the_stable_part_is_the_same_whatever_follows() -> None:
    """One stable run serves decays of any length, and a longer stable run begins as a shorter one."""
    runs = [schedule("wsd", 3, stable, decaying) for stable, decaying in ((20, 0), (20, 7), (20, 40), (35, 10))]
    for step in range(20):
        assert len({factor(step) for factor in runs}) == 1


def test_wsd_without_decay_or_without_stable_part() -> None:
    assert [schedule("wsd", 1, 4, 0)(step) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert [schedule("wsd", 0, 0, 4)(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_cosine_rises_and_falls_along_half_a_period() -> None:
    factor = schedule("cosine", warmup_steps=3, stable_steps=11, decay_steps=0)
    assert [factor(step) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert [factor(step) for step in (3, 5, 7, 9, 11)] == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
    assert all(a > b for a, b in itertools.pairwise(factor(step) for step in range(3, 12)))
    assert [schedule("cosine", 3, 6, 5)(step) for step in range(11)] == [factor(step) for step in range(11)]


def test_constant_only_warms_up() -> None:
    factor = schedule("constant", warmup_steps=1, stable_steps=5, decay_steps=0)
    assert [factor(step) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["wsd", "cosine", "constant"])
def test_a_warm_up_longer_than_the_run_stays_below_the_peak(kind: str) -> None:
    factor = schedule(kind, warmup_steps=9, stable_steps=2, decay_steps=2)
    assert all(0 < factor(step) <= (step + 1) / 10 for step in range(4))


def test_a_decay_is_a_fraction_of_the_whole() -> None:
    assert decay_steps("wsd", 160, 0.6) == 240  # of 400
    assert decay_steps("wsd", 160, 0.0) == 0
    assert decay_steps("wsd", 90, 0.1) == 10
    assert decay_steps("cosine", 160, 0.6) == decay_steps("constant", 160, 0.6) == 0
