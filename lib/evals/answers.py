"""What a model answered to held-out questions: `reports/evaluate/<model>/answers.jsonl`, which `judge` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lib.pipeline.errors import SmeltError


class Answered(NamedTuple):
    """One question, the answer that the data gives, and a model's. An id names the same question for all models."""

    id: str
    kind: str  # commands or subjects: what `evaluate` calls them
    prompt: str
    expected: str
    answer: str


def write_answers(path: Path, answers: Iterable[Answered]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in answers)


def read_answers(path: Path) -> list[Answered]:
    """The answers of a file, in its order.

    Raises:
        SmeltError: a line is no such answer.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                found.append(Answered(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise SmeltError(
                    f"{path}, line {number}: no answer of a model ({error}); `dvc repro` writes it"
                ) from None
    return found
