"""Text files: decoding them, undoing hard line wraps, cutting long ones into documents."""

from __future__ import annotations

import codecs
import re

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
# Where a long text may be cut, the best places first. In code, the first are the ends of top-level definitions.
_BORDERS = (
    re.compile(r"\n(?:[ \t]*\n)+(?=[^ \t\n])"),
    _BLANK_LINES,
    re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)]))\s+"),
)


def decode(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark; the mark is removed and line ends become a newline.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def unwrap(text: str) -> str:
    """Join the hard-wrapped lines of each paragraph.

    A line is taken for wrapped when it reaches near the file's usual width (its 90th percentile of line lengths), so
    that verse, headings and addresses keep their lines; an indented line always starts anew.
    """
    widths = sorted(len(line) for line in text.split("\n") if line.strip())
    if not widths:
        return text
    full = 0.6 * widths[len(widths) * 9 // 10]
    paragraphs = []
    for paragraph in _BLANK_LINES.split(text.strip("\n")):
        joined = ""
        previous = ""
        for line in paragraph.split("\n"):
            wrapped = len(previous) >= full and not line.startswith((" ", "\t"))
            joined += (" " if wrapped else "\n") + line.rstrip() if joined else line.rstrip()
            previous = line
        paragraphs.append(joined)
    return "\n\n".join(paragraphs)


def _blocks(text: str, size: int, level: int = 0) -> list[str]:
    """Cut at all borders of the first kind, and what is still longer than `size` at those of the next."""
    if len(text) <= size or level == len(_BORDERS):
        return [text]
    ends = [match.end() for match in _BORDERS[level].finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [block for part in parts if part for block in _blocks(part, size, level + 1)]


def split(text: str, size: int) -> list[str]:
    """Cut `text` into pieces of nearly equal length, about `size` characters each, at borders of paragraphs.

    Nothing is lost: the pieces, joined, are the text.
    """
    count = max(1, round(len(text) / size))
    pieces, piece, position = [], "", 0
    for block in _blocks(text, size) if count > 1 else [text]:
        border = len(text) / count * (len(pieces) + 1)  # where this piece should end
        if piece and position + len(block) / 2 > border:
            pieces.append(piece)
            piece = ""
        piece += block
        position += len(block)
    return [*pieces, piece]
