"""The figures, of verdicts that were made up so that the right ones are known by hand."""

from __future__ import annotations

import pytest

from lib.judge.calibration import Verdicts, measure
from lib.judge.control import GOLD, NEAR_MISS, SHUFFLED, TRUNCATED, WORSE, Question
from lib.judge.intervals import wilson
from lib.judge.judge import Preference

LONG, SHORT = "a long answer of seven words here", "short"


def verdicts(number, gold, worse, grades, preferences):
    answers = {GOLD: gold, NEAR_MISS: worse, SHUFFLED: worse, TRUNCATED: "cut"}
    question = Question(f"q{number}", "manual", "?", answers)
    return Verdicts(question, dict(zip(answers, grades, strict=True)), preferences)


RIGHT, WRONG = Preference(1.0, (1.0, 1.0)), Preference(0.0, (0.0, 0.0))
FIRST = Preference(0.5, (1.0, 0.0))  # whatever stands first


def test_a_judge_that_is_always_right():
    found = measure(
        [verdicts(n, LONG, SHORT, (5, 1, 2, 3), dict.fromkeys(WORSE, RIGHT)) for n in range(20)],
        least=0.8,
    )
    for what in ("grades", "pairs"):
        assert found[what]["accuracy"]["all"]["value"] == 1.0
        assert found[what]["accuracy"]["all"]["low"] == pytest.approx(wilson(1.0, 20)[0], abs=1e-4)
        assert found[what]["reliable"]
    assert found["pairs"]["order_bias"]["value"] == 0.0
    assert found["pairs"]["orders_agree"]["value"] == 1.0
    assert found["agreement"]["value"] == 1.0
    assert found["grades"]["mean"] == {GOLD: 5.0, NEAR_MISS: 1.0, SHUFFLED: 2.0, TRUNCATED: 3.0}


def test_a_judge_that_picks_what_stands_first():
    found = measure(
        [verdicts(n, LONG, SHORT, (3, 3, 3, 3), dict.fromkeys(WORSE, FIRST)) for n in range(20)],
        least=0.8,
    )
    assert found["pairs"]["accuracy"]["all"]["value"] == 0.5
    assert found["grades"]["accuracy"]["all"]["value"] == 0.5
    assert found["pairs"]["order_bias"]["value"] == 0.5
    assert found["pairs"]["order_bias"]["low"] > 0.3
    assert found["pairs"]["orders_agree"]["value"] == 0.0
    assert found["agreement"]["value"] is None  # neither decides
    assert not found["pairs"]["reliable"]
    assert not found["grades"]["reliable"]


def test_a_judge_that_picks_what_is_longer():
    short = [verdicts(n, SHORT, LONG, (1, 5, 5, 1), {NEAR_MISS: WRONG, SHUFFLED: WRONG}) for n in range(10)]
    long = [verdicts(n + 10, LONG, SHORT, (5, 1, 1, 1), {NEAR_MISS: RIGHT, SHUFFLED: RIGHT}) for n in range(10)]
    found = measure([*short, *long], least=0.4)
    for what in ("grades", "pairs"):
        assert found[what]["length_bias"]["value"] == 1.0
        assert found[what]["accuracy"][NEAR_MISS]["value"] == 0.5
    assert found["pairs"]["accuracy"]["all"]["value"] == 0.5
    # 0.5 is above the threshold, and the lower end of its interval is not.
    assert found["pairs"]["accuracy"]["all"]["low"] < 0.4
    assert not found["pairs"]["reliable"]


def test_grades_and_preferences_that_contradict_each_other():
    found = measure(
        [verdicts(n, LONG, SHORT, (5, 1, 5, 1), {NEAR_MISS: WRONG, SHUFFLED: WRONG}) for n in range(4)], 0.5
    )
    assert found["agreement"]["value"] == 0.0  # of the near misses; the shuffled ones have equal grades


def test_what_the_judge_did_not_answer_takes_no_part():
    silent = verdicts(0, LONG, SHORT, (None, 1, None, 1), {NEAR_MISS: None})
    found = measure([silent, verdicts(1, LONG, SHORT, (5, 1, 1, 1), {NEAR_MISS: RIGHT})], 0.5)
    assert found["questions"] == 2
    assert found["grades"]["accuracy"]["all"]["value"] == 1.0
    assert measure([silent], 0.5)["grades"]["accuracy"]["all"]["value"] is None
    assert not measure([silent], 0.0)["grades"]["reliable"]
