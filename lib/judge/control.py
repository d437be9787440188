"""The control set of a judge: questions whose answers are known, each with answers of known quality.

    gold        the answer that the data gives
    near_miss   what is most like it and wrong: the command that does the opposite (create for delete), another choice
                of the same question, else the gold answer of another question with most words in common
    shuffled    the gold answer of another question of the same kind
    truncated   the first half of the gold answer's words

Everything but gold is worse than gold by construction, so that a judge's every verdict is right or wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.evals.commands import token_f1
from lib.pipeline.errors import SmeltError

GOLD, NEAR_MISS, SHUFFLED, TRUNCATED = "gold", "near_miss", "shuffled", "truncated"
WORSE = (NEAR_MISS, SHUFFLED, TRUNCATED)
_REMOVING = ("delete", "remove", "deregister", "detach", "disassociate", "terminate", "cancel", "stop", "untag")
_LONGEST = 200  # characters of a gold answer: a longer one costs a judge more time and says no more of it
_TRUNCATABLE = 6  # words; the half of fewer may be as good as the whole


class Question(NamedTuple):
    """One question of the control set; `answers` by what they are, GOLD always among them."""

    id: str
    kind: str  # manual, encyclopedia, choice
    question: str
    answers: dict[str, str]


class _Asked(NamedTuple):
    id: str
    kind: str
    question: str
    gold: str
    others: tuple[str, ...]  # wrong choices that were given with the question


def _order(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()


def _conversations(path: Path, kind: str) -> list[_Asked]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        _Asked(f"{kind}/{row['id']}#{number}", kind, row["messages"][-2]["content"], row["messages"][-1]["content"], ())
        for number, row in enumerate(rows)
        if row["kind"] == kind
    ]


def _choices(path: Path) -> list[_Asked]:
    """Questions of a JSONL file of {question, options: a choice a line, answer: one of them}.

    Raises:
        SmeltError: a row lacks one of them, or its answer is none of its options.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            options = [option.partition(". ") for option in row["options"].split("\n") if option.strip()]
            answer = row["answer"].partition(". ")
            others = [choice.strip() for letter, _, choice in options if letter != answer[0]]
            if len(others) != len(options) - 1:
                raise ValueError(f"{answer[0]!r} is not the letter of one option")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SmeltError(
                f"{path}, line {number}: no question, options and an answer among them ({error})"
            ) from None
        name, question = f"choice/{path.parent.name}/{path.name}#{number}", row["question"].strip()
        found.append(_Asked(name, "choice", question, answer[2].strip(), tuple(others)))
    return found


def _opposite(command: str) -> str | None:
    """The command with another verb in its operation: `aws iam delete-user ...` -> `aws iam create-user ...`."""
    words = command.split(" ")
    verb, dash, rest = words[2].partition("-") if len(words) > 2 else ("", "", "")
    if not (dash and rest and verb.isalpha()):
        return None
    other = "create" if verb in _REMOVING else "delete"
    return " ".join([*words[:2], f"{other}-{rest}", *words[3:]])


def _near_miss(asked: _Asked, rest: Sequence[_Asked]) -> str | None:
    opposite = _opposite(asked.gold) if asked.kind == "manual" else None
    known = [opposite] if opposite else asked.others or [other.gold for other in rest]
    return max(known, key=lambda answer: (token_f1(answer, asked.gold), answer), default=None)


def _worse(asked: _Asked, rest: Sequence[_Asked], seed: int) -> Iterator[tuple[str, str]]:
    near = _near_miss(asked, rest)
    if near:
        yield NEAR_MISS, near
    strange = [other.gold for other in rest if not token_f1(other.gold, asked.gold) > 0.5 and other.gold != near]
    if strange:
        yield SHUFFLED, min(strange, key=lambda answer: _order(seed, asked.id, answer))
    words = asked.gold.split()
    if len(words) >= _TRUNCATABLE:
        yield TRUNCATED, " ".join(words[: len(words) // 2])


def build(conversations: Path, sets: Sequence[Path], per_kind: int, seed: int) -> list[Question]:
    """At most `per_kind` questions of each kind: held-out tasks of the manual, articles, public multiple choice.

    Args:
        conversations: JSONL of data/chat.
        sets: JSONL files of multiple-choice questions.
        seed: of the hash by which questions and shuffled answers are drawn.

    Raises:
        SmeltError: a set has a row that is no question.
    """
    kinds = {kind: _conversations(conversations, kind) for kind in ("manual", "encyclopedia")}
    kinds["choice"] = [asked for path in sets for asked in _choices(path)]
    questions = []
    for kind, everything in kinds.items():
        pool = [asked for asked in everything if len(asked.gold) <= _LONGEST]
        for asked in sorted(pool, key=lambda asked: _order(seed, asked.id))[:per_kind]:
            rest = [other for other in pool if other.question != asked.question and other.gold != asked.gold]
            answers = {GOLD: asked.gold, **dict(_worse(asked, rest, seed))}
            questions.append(Question(asked.id, kind, asked.question, answers))
    return questions
