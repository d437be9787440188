"""What the searches of this package give: places in a text, with what they hold."""

from __future__ import annotations

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


def without_overlaps(found: Iterable[Found]) -> list[Found]:
    """In order of place. Of two that overlap the type that stands first in PATTERNED stays, then the longer one."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (PATTERNED.index(one.type), one.start - one.end, one.start)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept)


def outside(start: int, end: int, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `start` to `end` that none of the spans in `taken` covers."""
    parts = [(start, end)]
    for first, last in taken:
        parts = [
            piece
            for begin, stop in parts
            for piece in ((begin, min(stop, first)), (max(begin, last), stop))
            if piece[0] < piece[1]
        ]
    return parts
