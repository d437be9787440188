"""What the searches of this package give: places in a text, with what they hold."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

PATTERNED = ("secret", "email", "iban", "credit_card", "national_id", "ip", "phone")  # the first one wins an overlap
NAMES = ("person", "place", "organisation")
PLACEHOLDER = re.compile(r"\[(?:" + "|".join(map(str.upper, PATTERNED + NAMES)) + r")_\d+\]")


class Found(NamedTuple):
    """Characters `start` to `end` are a value of `type`. Two spellings of one value have the same `key`."""

    start: int
    end: int
    type: str
    key: str


class Taken:
    """Spans that do not overlap, looked up by place."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans = sorted(spans)

    def overlapping(self, start: int, end: int) -> list[tuple[int, int]]:
        """Those that share a character with `start` to `end`, in order."""
        at = bisect.bisect_left(self._spans, (start, start))
        at -= at > 0 and self._spans[at - 1][1] > start
        return list(itertools.takewhile(lambda span: span[0] < end, self._spans[at : at + 1 + end - start]))

    def add(self, start: int, end: int) -> bool:
        """Take `start` to `end` if all of it is free."""
        free = not self.overlapping(start, end)
        if free:
            bisect.insort(self._spans, (start, end))
        return free


def without_overlaps(found: Iterable[Found]) -> list[Found]:
    """In order of place. Of two that overlap the type that stands first in PATTERNED stays, then the longer one."""
    taken = Taken()
    best = sorted(found, key=lambda one: (PATTERNED.index(one.type), one.start - one.end, one.start))
    return sorted(one for one in best if taken.add(one.start, one.end))


def outside(start: int, end: int, taken: Taken) -> list[tuple[int, int]]:
    """The parts of `start` to `end` that are free."""
    parts = []
    for first, last in taken.overlapping(start, end):
        if start < first:
            parts.append((start, first))
        start = last
    return [*parts, (start, end)] if start < end else parts
