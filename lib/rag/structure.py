"""The structure of a text that tells where it may be cut: headings, and blocks that belong together.

Markdown and reStructuredText are read by the few rules that they share, line by line; any other text has no headings,
and loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$")
_BOLD = re.compile(r"\*\*([^*\n]{2,100})\*\*:?\s*$")  # a line that is bold as a whole, as manuals title their examples
_UNDERLINE = re.compile(r"([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
_LEVELS = {"=": 1, "-": 2}  # of underlines, as in Markdown; others come after them, in their order
_BOLD_LEVEL = 99
_LONGEST_TITLE = 120
# "#" begins a comment there.
_CODE = re.compile(
    r"\.(py|pyi|sh|bash|rb|pl|r|jl|ps1|ya?ml|toml|conf|cfg|ini|mk|tf|env|properties)(?:#\d+)?$", re.IGNORECASE
)


class Heading(NamedTuple):
    start: int  # of its line
    level: int  # 1 is the highest
    title: str


@dataclass(frozen=True)
class Outline:
    headings: list[Heading]
    blocks: list[tuple[int, int]]  # code and other literal text: whole lines, text[start:end]

    def sections(self, length: int, title: str) -> list[tuple[int, int, str]]:
        """Tile a text of `length` characters by (start, end, headings from `title` down that it stands under)."""
        found: list[tuple[int, int, str]] = []
        path: list[Heading] = []
        start, above = 0, title
        for heading in self.headings:
            found.append((start, heading.start, above))
            path = [*(one for one in path if one.level < heading.level), heading]
            names = [title, *(one.title for one in path)]
            # A document's title is often its first heading too.
            above = " > ".join(name for at, name in enumerate(names) if name and name not in names[:at])
            start = heading.start
        found.append((start, length, above))
        return [section for section in found if section[0] < section[1]]


def is_code(document: str) -> bool:
    """Whether the id of a document is that of a file in which "#" begins a comment."""
    return _CODE.search(document) is not None


def outline(text: str, code: bool = False) -> Outline:
    """Headings and blocks of `text`; of `code`, none."""
    if code:
        return Outline([], [])
    lines = list(_lines(text))
    blocks = list(_blocks(lines))
    inside = {number for first, last in blocks for number in range(first, last)}
    headings = list(_headings(lines, inside))
    spans = [(lines[first][0], lines[last - 1][0] + len(lines[last - 1][1])) for first, last in blocks]
    return Outline(headings, spans)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        yield at, line
        at += len(line)


def _blocks(lines: list[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """Ranges of lines: between fences, or indented after an empty line, up to the last that is not empty."""
    number = 0
    while number < len(lines):
        line = lines[number][1]
        if (fence := _FENCE.match(line)) and (end := _closing(lines, number, fence[1])):
            yield number, end
            number = end
            continue
        before = lines[number - 1][1] if number else ""
        if _INDENTED.match(line) and not before.strip():
            end = number + 1
            for ahead in range(number + 1, len(lines)):
                if _INDENTED.match(lines[ahead][1]):
                    end = ahead + 1
                elif lines[ahead][1].strip():
                    break
            yield number, end
            number = end
            continue
        number += 1


def _closing(lines: list[tuple[int, str]], opening: int, mark: str) -> int | None:
    """The number of the line after the fence that closes; None: it never does, and is none (a stray mark)."""
    for number in range(opening + 1, len(lines)):
        fence = _FENCE.match(lines[number][1])
        if fence and fence[1].startswith(mark) and not fence[2].strip():
            return number + 1
    return None


def _headings(lines: list[tuple[int, str]], inside: set[int]) -> Iterator[Heading]:
    levels = dict(_LEVELS)
    for number, (start, line) in enumerate(lines):
        before = lines[number - 1][1] if number else ""
        over = (number > 1 and bool(_UNDERLINE.match(before)) and not lines[number - 2][1].strip()) or (
            number == 1 and bool(_UNDERLINE.match(before))
        )
        if number in inside or not line.strip() or (before.strip() and not over):
            continue
        if found := _ATX.match(line):
            yield Heading(start, len(found[1]), found[2])
        elif found := _BOLD.match(line):
            yield Heading(start, _BOLD_LEVEL, found[1].strip())
        elif number + 1 < len(lines) and (found := _UNDERLINE.match(lines[number + 1][1])):
            title, mark = line.strip(), found[1]
            long_enough = mark in _LEVELS or len(found[0].strip()) >= len(title)
            if len(title) <= _LONGEST_TITLE and long_enough and not _UNDERLINE.match(line):
                yield Heading(start, levels.setdefault(mark, len(levels) + 1), title)
