"""The same text in the same bytes: one Unicode form, one kind of line end, no invisible characters."""

from __future__ import annotations

import re
import unicodedata

from datatrove.pipeline.formatters.base import BaseFormatter

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, soft hyphens, byte order marks, direction marks. Zero-width joiners stay: Persian, Hindi and emoji
# are spelled with them.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffe\uffff]"
)
_SPACES = re.compile(r"[\xa0\u2000-\u200a\u202f\u205f\u3000]")
_BLANK_LINES = re.compile(r"\n{4,}")


def normalise(text: str) -> str:
    """NFC; newlines; plain spaces; nothing invisible; no blanks at line ends; at most two blank lines in a row.

    Indentation and spaces inside a line stay: code and tables need them. Normalising twice changes nothing.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    text = unicodedata.normalize("NFC", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")


class Normalise(BaseFormatter):
    name = "Normalise"

    def format(self, text: str) -> str:
        return normalise(text)
