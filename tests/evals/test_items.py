from __future__ import annotations

import math

import numpy as np
import pytest

from lib.evals.items import Item, mean_score, paired_difference, read_items, to_lines


def of(task: str, scores: dict[str, float], weights: dict[str, float] | None = None) -> dict[str, Item]:
    return {name: Item(task, name, score, (weights or {}).get(name)) for name, score in scores.items()}


def test_a_file_gives_back_its_items_whatever_their_order(tmp_path):
    items = [Item("b/x", "2", 0.1234567), Item("a", "ü", 1.0, 3), Item("b/x", "1", 0.0)]
    assert list(to_lines(items)) == list(to_lines(reversed(items)))
    path = tmp_path / "items.jsonl"
    path.write_text("".join(to_lines(items)), encoding="utf-8")
    assert read_items(path) == {
        "a": {"ü": Item("a", "ü", 1.0, 3)},
        "b/x": {"1": Item("b/x", "1", 0.0), "2": Item("b/x", "2", 0.123457)},
    }


def test_a_paired_difference_is_over_the_shared_items_alone():
    difference, count = paired_difference(
        of("t", {"1": 0.0, "2": 1.0, "3": 0.0, "old": 0.0}), of("t", {"1": 1.0, "2": 1.0, "3": 1.0, "new": 1.0})
    )
    assert count == 3
    assert difference.value == pytest.approx(2 / 3)
    assert difference.stderr == pytest.approx(math.sqrt((1 / 3) / 3))  # differences 1, 0, 1: variance 1/3


def test_weights_make_it_the_difference_of_the_ratios():
    weights = {"1": 10.0, "2": 30.0}
    before, after = {"1": 1.0, "2": 2.0}, {"1": 1.5, "2": 1.8}
    difference, _ = paired_difference(of("t", before, weights), of("t", after, weights))
    mean = lambda scores: sum(scores[name] * weights[name] for name in scores) / 40  # noqa: E731
    assert difference.value == pytest.approx(mean(after) - mean(before))
    assert mean_score(of("t", before, weights).values()).value == pytest.approx(mean(before))


def test_what_both_find_hard_does_not_count_as_noise():
    random = np.random.default_rng(1)
    hard = random.normal(0, 5, 200)
    before = {str(n): float(value) for n, value in enumerate(hard)}
    after = {str(n): float(value + 0.3 + 0.1 * random.normal()) for n, value in enumerate(hard)}
    difference, _ = paired_difference(of("t", before), of("t", after))
    assert abs(difference.value - 0.3) < 3 * difference.stderr
    assert difference.stderr < 0.01  # of two separate means it would be 0.5


def test_nothing_in_common_is_unknown():
    difference, count = paired_difference(of("t", {"1": 0.0}), of("t", {"2": 1.0}))
    assert (difference.value, difference.stderr, count) == (None, None, 0)
