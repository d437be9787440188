"""Held-out tasks of the manual: a question in words, whose answer is a command that can be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.evals.command_line import Manual
from lib.evals.estimates import mean
from lib.evals.items import Item


class Example(NamedTuple):
    document: str  # id of the page that it is from
    messages: list[dict[str, str]]  # up to the question
    expected: str

    @property
    def prompt(self) -> str:
        return self.messages[-1]["content"]

    @property
    def id(self) -> str:
        """Of the page and the question: a page may give several."""
        return f"{self.document}#{hashlib.sha256(self.prompt.encode()).hexdigest()[:8]}"


def read_examples(path: Path, kind: str, limit: int | None) -> list[Example]:
    """The first `limit` conversations of `kind` (None: all); the file is shuffled already."""
    examples: list[Example] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            conversation = json.loads(line)
            if conversation["kind"] == kind and (limit is None or len(examples) < limit):
                *messages, answer = conversation["messages"]
                examples.append(Example(conversation["id"], messages, answer["content"]))
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


def score_commands(
    name: str, answers: Sequence[str], examples: Sequence[Example], manual: Manual
) -> tuple[dict[str, Any], list[Item]]:
    """Compare each answer's command with the expected one.

    Returns:
        `examples`, and with standard errors `service` (program and service right: the first two words), `valid` (it
        could be typed, see command_line.py), `exact_match` and `token_f1`. And each example's, as items of `name`.
    """
    scores: dict[str, list[float]] = {"service": [], "valid": [], "exact_match": [], "token_f1": []}
    for answer, example in zip(answers, examples, strict=True):
        right = " ".join(re.sub(r"\\\s*\n", " ", example.expected).split())
        got = find_command(answer, right.split()[0])
        scores["service"].append(float(got.split()[:2] == right.split()[:2]))
        scores["valid"].append(float(manual.knows(got)))
        scores["exact_match"].append(float(got == right))
        scores["token_f1"].append(token_f1(got, right))
    items = [
        Item(f"{name}/{key}", example.id, value)
        for key, values in scores.items()
        for example, value in zip(examples, values, strict=True)
    ]
    return {"examples": len(examples)} | {key: mean(values).as_metric() for key, values in scores.items()}, items
