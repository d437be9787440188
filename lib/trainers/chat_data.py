"""The rows of data/chat as token ids, by the base model's own tokenizer and template.

A conversation that is longer than the model reads is cut after an answer, never within a turn: what is left is a whole
conversation, only shorter. One whose first answer does not fit, or that the template cannot take, is dropped. Plain
text is cut into pieces of the model's context, of which no prediction is lost; all of it is learnt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.tokenizer.rendering import ChatRenderer
from lib.tokenizer.template import Messages, Unrenderable


class Example(NamedTuple):
    """L tokens of a conversation or of a piece of text."""

    ids: np.ndarray  # (L,) int32
    learnt: np.ndarray  # (L,) bool: whether the loss is on it


@dataclass
class Tally:
    """What became of the rows: rows = whole + cut + dropped."""

    rows: int = 0
    whole: int = 0
    cut: int = 0  # conversations that lost their last turns, and texts of several pieces
    turns_cut: int = 0  # messages that conversations lost
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    tokens: Counter[str] = field(default_factory=Counter)  # by group
    learnt: Counter[str] = field(default_factory=Counter)  # of these, with loss

    def metrics(self) -> dict[str, Any]:
        total = self.tokens.total()
        return {
            "rows": self.rows,
            "whole": self.whole,
            "cut": self.cut,
            "turns_cut": self.turns_cut,
            "dropped": dict(sorted(self.dropped.items())),
            "groups": {
                group: {"tokens": tokens, "share": round(tokens / total, 4), "learnt_tokens": self.learnt[group]}
                for group, tokens in sorted(self.tokens.items())
            },
        }


def read_examples(paths: Iterable[Path], renderer: ChatRenderer, longest: int) -> tuple[list[Example], Tally]:
    """The rows of JSONL files as examples of at most `longest` inputs each.

    A row is `{"group": ..., "messages": [...]}` or `{"group": ..., "text": ...}`.

    Raises:
        SmeltError: a line is neither.
    """
    examples, tally = [], Tally()
    for row in _rows(paths):
        tally.rows += 1
        group = row.get("group", "instructions")
        try:
            made = _pieces(row["text"], renderer, longest, tally) if "text" in row else [
                _conversation(row["messages"], renderer, longest, tally)
            ]  # fmt: skip
        except Unrenderable as error:
            tally.dropped[error.reason] += 1
            continue
        examples += made
        tally.tokens[group] += sum(len(example.ids) for example in made)
        tally.learnt[group] += sum(int(example.learnt.sum()) for example in made)
    return examples, tally


def _rows(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if not isinstance(row, dict) or not ("messages" in row or "text" in row):
                    raise SmeltError(f"{path.name}, line {number}: neither messages nor text; run `dvc repro chat`")
                yield row


def _example(ids: list[int], learnt: list[bool]) -> Example:
    return Example(np.array(ids, np.int32), np.array(learnt, bool))


def _conversation(messages: Messages, renderer: ChatRenderer, longest: int, tally: Tally) -> Example:
    """The conversation up to the last answer with which it still fits.

    Raises:
        Unrenderable: its first answer does not fit, nothing in it is learnt, or the template cannot take it.
    """
    ends = [place for place, message in enumerate(messages, start=1) if message["role"] == "assistant"]
    for end in reversed(ends):
        ids, learnt = renderer.encode(messages[:end])
        if len(ids) > longest:
            continue
        if not any(learnt[1:]):
            raise Unrenderable("nothing_to_learn")
        tally.whole += end == ends[-1]
        tally.cut += end < ends[-1]
        tally.turns_cut += len(messages) - end if end < ends[-1] else 0
        return _example(ids, learnt)
    raise Unrenderable("too_long" if ends else "no_answer")


def _pieces(text: str, renderer: ChatRenderer, longest: int, tally: Tally) -> list[Example]:
    """Every token but the first is learnt once; that of a piece's first label is read as its input."""
    ids = renderer.text(text)
    pieces = [ids[start : start + longest + 1] for start in range(0, len(ids) - 1, longest)]
    if not pieces:
        raise Unrenderable("nothing_to_learn")
    tally.whole += len(pieces) == 1
    tally.cut += len(pieces) > 1
    return [_example(piece, [False, *[True] * (len(piece) - 1)]) for piece in pieces]
