"""A language model as judge: it grades an answer from 1 to 5, or picks the better of two.

A verdict is the likeliest of the allowed answers behind `{"grade": `, so that it is always in form where the model runs
here. Where the model tells the probabilities, they make the verdict finer: the grade is the mean of the grades by their
probability (Liu et al. 2023, G-Eval), and a pair is decided by the log-odds of both orders together, so that what a
judge gives to the first place cancels (Zheng et al. 2023). Elsewhere a pair whose two orders disagree is a draw. With
Qwen2.5-Coder-0.5B the likeliest grade alone is right about 62% of known pairs, the mean about 98%; of two answers it
finds the better one in 67% when asked for it, and in 83% when asked for the worse.

Temperature 0. The answers judged cannot speak as the user or the system: no text is read as a special token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

from lib.completion.endpoint import Endpoint
from lib.completion.types import Choice, Completion, Rejected, Request
from lib.pipeline.errors import SmeltError

GRADES, LETTERS = ("1", "2", "3", "4", "5"), ("A", "B")
_GRADE, _WORSE = Choice("grade", GRADES), Choice("worse", LETTERS)
_PROMPTS = Path(__file__).parent / "prompts"
_ANSWER_TOKENS = 24  # of `{"worse": "A"}` with whatever white space
_PATIENCE = 10  # answers out of form and none in form: the judge is given up
_GIVEN = " A reference answer, which is correct, is given."


class Case(NamedTuple):
    """An answer to be graded."""

    question: str
    reference: str | None  # a right answer, where one is known
    answer: str


class Pair(NamedTuple):
    """Two answers to be compared."""

    question: str
    reference: str | None
    one: str
    other: str


class Preference(NamedTuple):
    """Which answer of a pair is better."""

    score: float  # 1: the first one; 0: the other; 1/2: a draw
    picks: tuple[float, float]  # for `one`, in the order (one, other) and in the order (other, one): 1 or 0

    @property
    def firsts(self) -> tuple[float, float]:
        """Whether the answer that was shown first was picked, in either order."""
        return self.picks[0], 1 - self.picks[1]


class OutOfForm(SmeltError):
    """The judge does not answer in form."""


def _prompt(name: str, question: str, reference: str | None, **answers: str) -> str:
    template = Template((_PROMPTS / f"{name}.txt").read_text(encoding="utf-8").strip())
    shown = "" if reference is None else f"\nReference answer: {reference}\n"
    # One pass: what a text says in `$...` stays as it is.
    return template.substitute(given="" if reference is None else _GIVEN, question=question, reference=shown, **answers)


def _request(content: str, choice: Choice) -> Request:
    return Request([{"role": "user", "content": content}], _ANSWER_TOKENS, 0.0, 0, choice=choice)


class Judge:
    """Asks an endpoint for verdicts, in the order of what is given; None where there is no usable one.

    Attributes:
        rejected: how many answers were not usable, by reason.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._in_form = 0
        self.rejected: dict[str, int] = {}

    @property
    def identity(self) -> str:
        return self._endpoint.identity

    @property
    def stopped(self) -> str | None:
        """The limit of the budget that ended the last series, or None."""
        return self._endpoint.stopped

    def grades(self, cases: Iterable[Case], prompt: str = "grade") -> Iterator[float | None]:
        """The grade of each case, 1 to 5; fewer than there are cases if the budget ends.

        Args:
            prompt: `grade` answers to questions, or `continue` for texts after a beginning.

        Raises:
            SmeltError: the judge answers nobody, or never in form.
        """
        requests = (
            _request(_prompt(prompt, case.question, case.reference, answer=case.answer), _GRADE) for case in cases
        )
        for answer in self._endpoint.complete_all(requests):
            yield self._grade(answer)

    def preferences(self, pairs: Iterable[Pair]) -> Iterator[Preference | None]:
        """The better answer of each pair, asked in both orders.

        Raises:
            SmeltError: the judge answers nobody, or never in form.
        """
        requests = (
            _request(_prompt("compare", pair.question, pair.reference, first=first, second=second), _WORSE)
            for pair in pairs
            for first, second in ((pair.one, pair.other), (pair.other, pair.one))
        )
        answers = self._endpoint.complete_all(requests)
        for there in answers:
            back = next(answers, None)
            if back is None:
                return
            yield self._preference(there, back)

    def _usable(self, answer: Completion | Rejected) -> bool:
        if isinstance(answer, Completion):
            self._in_form += 1
            return True
        self.rejected[answer.reason] = self.rejected.get(answer.reason, 0) + 1
        formless = self.rejected.get("not_in_form", 0) + self.rejected.get("cut_off", 0)
        if not self._in_form and formless >= _PATIENCE:
            raise OutOfForm(
                f"the judge {self.identity} never answers in form: {_PATIENCE} answers, the last one {answer.detail}. "
                f"Choose another `judge.model`, or one whose server takes a schema (structured: json_schema)"
            )
        return False

    def _grade(self, answer: Completion | Rejected) -> float | None:
        if not self._usable(answer):
            return None
        if answer.log_probabilities is None:
            return float(answer.text)
        shares = {grade: math.exp(answer.log_probabilities[grade]) for grade in GRADES}
        return math.fsum(int(grade) * share for grade, share in shares.items()) / math.fsum(shares.values())

    def _preference(self, there: Completion | Rejected, back: Completion | Rejected) -> Preference | None:
        usable = [self._usable(there), self._usable(back)]
        if not all(usable):
            return None
        picks = float(there.text == "B"), float(back.text == "A")
        if there.log_probabilities is None or back.log_probabilities is None:
            return Preference(sum(picks) / 2, picks)
        odds = (
            there.log_probabilities["B"]
            - there.log_probabilities["A"]
            + back.log_probabilities["A"]
            - back.log_probabilities["B"]
        )
        return Preference(0.5 if odds == 0 else float(odds > 0), picks)
