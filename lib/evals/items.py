"""What a model scored on each item, kept beside the means: two runs are compared on the items that both have.

`reports/evaluate/<model>/items.jsonl`, one JSON object a line, sorted by task and id:

    {"task": "piqa/accuracy", "id": "validation.jsonl#12", "score": 1.0}
    {"task": "bits_per_byte/wiki", "id": "wiki/...#8", "score": 0.93, "weight": 1834}

A task's mean is that of its scores, weighted by `weight` where it is given (bytes, of bits per byte). An id names the
same item in every run that has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lib.evals.estimates import Estimate, ratio

_DIGITS = 6  # as of estimates


class Item(NamedTuple):
    task: str
    id: str
    score: float
    weight: float | None = None  # None: all items count alike


def to_lines(items: Iterable[Item]) -> Iterator[str]:
    """The lines of an items file, sorted."""
    for item in sorted(items):
        values = {"task": item.task, "id": item.id, "score": round(item.score, _DIGITS)}
        if item.weight is not None:
            values["weight"] = item.weight
        yield json.dumps(values, ensure_ascii=False) + "\n"


def read_items(path: Path) -> dict[str, dict[str, Item]]:
    """The items of a file by task and id."""
    found: dict[str, dict[str, Item]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            item = Item(**json.loads(line))
            found.setdefault(item.task, {})[item.id] = item
    return found


def mean_score(items: Iterable[Item]) -> Estimate:
    """The weighted mean of the scores, with its standard error over items."""
    rows = [(1.0 if item.weight is None else item.weight, item.score) for item in items]
    return ratio([weight * score for weight, score in rows], [weight for weight, _ in rows])


def paired_difference(before: dict[str, Item], after: dict[str, Item]) -> tuple[Estimate, int]:
    """How much higher `after` scores on the items that both have, with the standard error of the paired difference.

    Pairing takes out what makes items easy or hard for both, so the error is smaller than that of two separate means.

    Returns:
        The weighted mean of the differences, and how many items it is over.
    """
    shared = sorted(before.keys() & after.keys())
    weights = [1.0 if before[name].weight is None else before[name].weight for name in shared]
    differences = [
        weight * (after[name].score - before[name].score) for name, weight in zip(shared, weights, strict=True)
    ]
    return ratio(differences, weights), len(shared)
