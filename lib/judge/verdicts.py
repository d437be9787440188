"""What a judge says of two models' answers to the same held-out questions, as estimates and item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lib.evals.answers import Answered
from lib.evals.estimates import mean
from lib.judge.judge import Case, Judge, Pair, Preference

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


class Judged(NamedTuple):
    """One question with the answers of two models: `one` and `other`."""

    question: Answered  # with the answer of `one`
    other: str
    grades: tuple[float | None, float | None]
    preference: float | None  # 1: that of `one` is better; 0: that of `other`; 1/2: a draw


def shared(one: Sequence[Answered], other: Sequence[Answered], per_kind: int) -> list[tuple[Answered, Answered]]:
    """The first `per_kind` questions of each kind that both models answered."""
    others = {answered.id: answered for answered in other}
    pairs, taken = [], {}
    for answered in one:
        if answered.id in others and taken.get(answered.kind, 0) < per_kind:
            taken[answered.kind] = taken.get(answered.kind, 0) + 1
            pairs.append((answered, others[answered.id]))
    return pairs


def judge_pairs(
    judge: Judge, pairs: Sequence[tuple[Answered, Answered]], with_reference: bool, progress: Progress
) -> list[Judged]:
    """Grade both answers of each pair, and compare them; None where the judge gives no usable verdict.

    Raises:
        SmeltError: the judge answers nobody, or never in form.
    """

    def reference(answered: Answered) -> str | None:
        return answered.expected if with_reference else None

    cases = [Case(one.prompt, reference(one), one.answer) for pair in pairs for one in pair]
    grades: list[float | None] = [None] * len(cases)
    for at, grade in enumerate(progress(judge.grades(cases), len(cases), " grades")):
        grades[at] = grade
    compared = [Pair(one.prompt, reference(one), one.answer, other.answer) for one, other in pairs]
    preferences: list[Preference | None] = [None] * len(pairs)
    for at, preference in enumerate(progress(judge.preferences(compared), len(compared), " pairs")):
        preferences[at] = preference
    return [
        Judged(one, other.answer, (grades[2 * at], grades[2 * at + 1]), preference and preference.score)
        for at, ((one, other), preference) in enumerate(zip(pairs, preferences, strict=True))
    ]


def summarise(judged: Sequence[Judged], names: tuple[str, str]) -> dict[str, Any]:
    """The means with their standard errors, over all questions and by kind; those without a verdict are left out."""
    kinds = list(dict.fromkeys(one.question.kind for one in judged))
    groups: Mapping[str, Sequence[Judged]] = {
        "all": judged,
        **{kind: [one for one in judged if one.question.kind == kind] for kind in kinds},
    }
    return {name: _summary(group, names) for name, group in groups.items()}


def _summary(judged: Sequence[Judged], names: tuple[str, str]) -> dict[str, Any]:
    graded = [one.grades for one in judged if None not in one.grades]
    preferred = [one.preference for one in judged if one.preference is not None]
    return {
        "questions": len(judged),
        "graded": len(graded),
        "grade": {name: mean([grades[at] for grades in graded]).as_metric() for at, name in enumerate(names)},
        "grade_difference": mean([one - other for one, other in graded]).as_metric(),
        "compared": len(preferred),
        "preferred": mean(preferred).as_metric(),  # of the first model; 1/2 is a tie
    }
