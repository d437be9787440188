"""Held-out tasks of the manual: a question in words, whose answer is a command that can be compared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.evals.estimates import mean


class Example(NamedTuple):
    messages: list[dict[str, str]]  # up to the question
    expected: str
    id: str  # <document>#<number>: names the question in every run

    @property
    def prompt(self) -> str:
        return self.messages[-1]["content"]


def read_examples(path: Path, kind: str, limit: int) -> list[Example]:
    """The first `limit` conversations of `kind`; the file is shuffled already."""
    examples: list[Example] = []
    seen: Counter[str] = Counter()  # a document may give several conversations
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            conversation = json.loads(line)
            number = seen[conversation["id"]] = seen[conversation["id"]] + 1
            if conversation["kind"] == kind and len(examples) < limit:
                *messages, answer = conversation["messages"]
                examples.append(Example(messages, answer["content"], f"{conversation['id']}#{number}"))
    return examples


def find_command(answer: str, program: str) -> str:
    """The command in an answer, white space normalised.

    That is the first line that starts with `program`, alone or inside code marks; else the first such code span inside
    a sentence; else the first line. So a model that wraps its command in Markdown is not marked down for that.
    """
    joined = re.sub(r"\\\s*\n\s*", " ", answer)  # a backslash at the end continues a shell's line
    lines = [re.sub(r"^[`$\s]+(.*?)`*$", r"\1", line.rstrip()) for line in joined.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", joined)
    commands = [text for text in [*lines, *spans] if text.split()[:1] == [program]]
    words = next(iter([*commands, *filter(str.strip, lines)]), "").split()
    return " ".join(words)


def token_f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall over words as a multiset (Rajpurkar et al. 2016, SQuAD)."""
    got, wanted = Counter(answer.split()), Counter(expected.split())
    shared = (got & wanted).total()
    return 2 * shared / (got.total() + wanted.total()) if shared else 0.0


def score_commands(answers: Sequence[str], expected: Sequence[str]) -> dict[str, Any]:
    """Compare each answer's command with the expected one.

    Returns:
        `examples`, and with standard errors `service` (program and service right: the first two words), `exact_match`
        and `token_f1`.
    """
    pairs = []
    for answer, right in zip(answers, expected, strict=True):
        command = " ".join(re.sub(r"\\\s*\n", " ", right).split())
        pairs.append((find_command(answer, command.split()[0]), command))
    return {
        "examples": len(pairs),
        "service": mean([float(got.split()[:2] == right.split()[:2]) for got, right in pairs]).as_metric(),
        "exact_match": mean([float(got == right) for got, right in pairs]).as_metric(),
        "token_f1": mean([token_f1(got, right) for got, right in pairs]).as_metric(),
    }
