"""Tasks with a known answer, as the model that is to learn from them answers them now.

The right answer beside the model's own wrong one is a pair for preference tuning, as in self-play fine-tuning (Chen et
al. 2024, https://arxiv.org/abs/2401.01335), where every answer that the model gives counts as the worse one; here a
right one gives no pair.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lib.evals.commands import find_command


class CheckableTask(NamedTuple):
    prompt: list[dict[str, str]]
    expected: str


def read_tasks(path: Path, kinds: Collection[str], limit: int) -> list[CheckableTask]:
    """The first `limit` conversations of these kinds in a JSONL file, which is shuffled already."""
    found: list[CheckableTask] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("kind") in kinds and len(found) < limit:
                *prompt, answer = row["messages"]
                found.append(CheckableTask(prompt, answer["content"]))
    return found


def is_right(answer: str, expected: str) -> bool:
    """Whether the answer is, or has in it, the command that is expected; white space does not count."""
    words = expected.split()
    return find_command(answer, words[0]).split() == words
