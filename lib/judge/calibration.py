"""How far a judge can be trusted, measured on the control set before any verdict of it is shown.

Of every control question the judge grades each answer and compares the gold answer with each worse one, in both orders,
with the same prompts as later.

    accuracy      pairs: how often the gold answer is preferred; grades: how often its grade is better (a draw: half)
    order bias    how much more often than half of the time the answer that is shown first is picked
    length bias   accuracy where gold is the longer answer, less accuracy where it is the shorter one; of answers that
                  are wrong, not truncated ones, which are always shorter
    agreement     of the two orders: how often they pick the same answer; of grades with preferences: how often both
                  say that the same answer is better, where both decide
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib.judge.control import GOLD, TRUNCATED, WORSE, Question
from lib.judge.intervals import Interval, difference, share
from lib.judge.judge import Case, Judge, Pair, Preference
from lib.pipeline.errors import SmeltError

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class Verdicts:
    """What the judge said of one control question: grades by answer, preferences of gold over each worse answer."""

    question: Question
    grades: Mapping[str, float | None]
    preferences: Mapping[str, Preference | None]

    def graded(self, worse: str) -> float | None:
        """1: gold has the better grade; 0: the worse answer; 1/2: a draw."""
        gold, other = self.grades.get(GOLD), self.grades.get(worse)
        return None if gold is None or other is None else (gold > other) + 0.5 * (gold == other)

    def preferred(self, worse: str) -> float | None:
        preference = self.preferences.get(worse)
        return None if preference is None else preference.score


def ask(judge: Judge, questions: Sequence[Question], with_reference: bool, progress: Progress) -> list[Verdicts]:
    """Every verdict on the control set; a question that the budget does not reach has none."""
    answers = [(question, name) for question in questions for name in question.answers]
    cases = (
        Case(question.question, _reference(question, with_reference), question.answers[name])
        for question, name in answers
    )
    grades: dict[str, dict[str, float | None]] = {}
    graded = progress(judge.grades(cases), len(answers), " control grades")
    for (question, name), grade in zip(answers, graded, strict=False):
        grades.setdefault(question.id, {})[name] = grade
    compared = compare(judge, questions, with_reference, progress)
    return [replace(one, grades=grades.get(one.question.id, {})) for one in compared]


def compare(judge: Judge, questions: Sequence[Question], with_reference: bool, progress: Progress) -> list[Verdicts]:
    """The preferences alone, which need no grades."""
    pairs = [(question, name) for question in questions for name in question.answers if name != GOLD]
    compared = (
        Pair(question.question, _reference(question, with_reference), question.answers[GOLD], question.answers[name])
        for question, name in pairs
    )
    preferences: dict[str, dict[str, Preference | None]] = {}
    found = progress(judge.preferences(compared), len(pairs), " control pairs")
    for (question, name), preference in zip(pairs, found, strict=False):
        preferences.setdefault(question.id, {})[name] = preference
    return [Verdicts(question, {}, preferences.get(question.id, {})) for question in questions]


def require(
    judge: Judge, questions: Sequence[Question], with_reference: bool, least: float, progress: Progress
) -> dict[str, Any]:
    """How often the judge prefers gold, with the 95% interval, where that is often enough.

    Raises:
        SmeltError: the lower end of the interval is below `least`, or the judge gave no verdict at all.
    """
    pairs = measure(compare(judge, questions, with_reference, progress), least)["pairs"]
    accuracy = pairs["accuracy"]["all"]
    if accuracy["value"] is None:
        raise SmeltError(f"the judge {judge.identity} gave no verdict on pairs with a known answer: {judge.rejected}")
    if not pairs["reliable"]:
        raise SmeltError(
            f"the judge {judge.identity} is right on {accuracy['value']:.0%} of pairs with a known answer "
            f"({accuracy['low']:.0%} to {accuracy['high']:.0%}), and the lower end of that has to reach "
            f"judge.min_accuracy, {least:.0%}: what it prefers would teach chance. Choose a better judge.model, raise "
            f"judge.control if there are few such pairs, or set preferences.from to answers or files"
        )
    return accuracy


def _reference(question: Question, with_reference: bool) -> str | None:
    return question.answers[GOLD] if with_reference else None


def _over(verdicts: Sequence[Verdicts], trials: Callable[[Verdicts], Iterator[float | None]]) -> Interval:
    return share([[trial for trial in trials(of_one) if trial is not None] for of_one in verdicts])


def _accuracy(verdicts: Sequence[Verdicts], score: Callable[[Verdicts, str], float | None]) -> dict[str, Any]:
    measured = {"all": _over(verdicts, lambda one: (score(one, worse) for worse in WORSE))}
    for worse in WORSE:
        measured[worse] = _over(verdicts, lambda one, worse=worse: iter([score(one, worse)]))
    return {name: interval.as_metric() for name, interval in measured.items()}


def _length_bias(verdicts: Sequence[Verdicts], score: Callable[[Verdicts, str], float | None]) -> dict[str, Any]:
    def where(longer: bool) -> Interval:
        def trials(one: Verdicts) -> Iterator[float | None]:
            gold = len(one.question.answers[GOLD])
            for name, answer in one.question.answers.items():
                if name not in (GOLD, TRUNCATED) and len(answer) != gold and (gold > len(answer)) == longer:
                    yield score(one, name)

        return _over(verdicts, trials)

    return difference(where(True), where(False)).as_metric()


def _agrees(one: Verdicts) -> Iterator[float | None]:
    for worse in WORSE:
        graded, preferred = one.graded(worse), one.preferred(worse)
        if graded in (0.0, 1.0) and preferred in (0.0, 1.0):
            yield float(graded == preferred)


def _firsts(one: Verdicts) -> Iterator[float]:
    for preference in one.preferences.values():
        if preference is not None:
            yield from preference.firsts


def _same(one: Verdicts) -> Iterator[float]:
    for preference in one.preferences.values():
        if preference is not None:
            yield float(preference.picks[0] == preference.picks[1])


def measure(verdicts: Sequence[Verdicts], least: float) -> dict[str, Any]:
    """The figures, each with its 95% interval.

    Args:
        least: accuracy that the lower end of its interval must reach for verdicts to be `reliable`.
    """
    firsts = _over(verdicts, _firsts)
    bias = None if firsts.value is None else {
        name: None if number is None else round(number - (name != "stderr") / 2, 4)
        for name, number in firsts._asdict().items()
    }  # fmt: skip
    grading, comparing = _accuracy(verdicts, Verdicts.graded), _accuracy(verdicts, Verdicts.preferred)
    means = {
        name: [grade for one in verdicts if (grade := one.grades.get(name)) is not None] for name in (GOLD, *WORSE)
    }
    return {
        "questions": len(verdicts),
        "grades": {
            "accuracy": grading,
            "length_bias": _length_bias(verdicts, Verdicts.graded),
            "mean": {name: round(sum(values) / len(values), 4) if values else None for name, values in means.items()},
            "reliable": _reaches(grading["all"], least),
        },
        "pairs": {
            "accuracy": comparing,
            "order_bias": bias,
            "length_bias": _length_bias(verdicts, Verdicts.preferred),
            "orders_agree": _over(verdicts, _same).as_metric(),
            "reliable": _reaches(comparing["all"], least),
        },
        "agreement": _over(verdicts, _agrees).as_metric(),
    }


def _reaches(accuracy: Mapping[str, float | None], least: float) -> bool:
    return accuracy["low"] is not None and accuracy["low"] >= least
