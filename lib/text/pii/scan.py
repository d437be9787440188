"""The first look at a text, which must be cheap: most of any text is nobody's.

Beside the text stand two copies of it in single bytes, with every character at the same place. In `shape` all digits
are 0, all capitals A, all small letters a: an IP address is `0.0.0.0` with one to three of each, and a pattern that
begins with one fixed byte is searched for at the speed of memchr.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

_SHAPE = bytes.maketrans(
    (string.digits + string.ascii_uppercase + string.ascii_lowercase).encode(), b"0" * 10 + b"A" * 26 + b"a" * 26
)
# At least seven digits, with what people put between them; ? is any character that Latin-1 lacks, such as a dash.
_NUMBER = re.compile(rb"0(?:[ \-./()?]{0,2}0){6,}")


class Scan:
    """`text`, its `shape`, and it `folded`: in small letters."""

    def __init__(self, text: str) -> None:
        plain = text.encode("latin-1", "replace")
        self.text, self.shape, self.folded = text, plain.translate(_SHAPE), plain.lower()

    def has(self, *words: bytes) -> bool:
        return any(word in self.folded for word in words)

    def numbers(self) -> Iterator[tuple[int, int]]:
        """Where digits gather, with room for a sign before and a letter behind."""
        for match in _NUMBER.finditer(self.shape):
            yield max(0, match.start() - 2), min(len(self.text), match.end() + 3)

    def places(self, *words: bytes) -> Iterator[int]:
        """Where one of the words stands, in any case."""
        for word in words:
            at = self.folded.find(word)
            while at >= 0:
                yield at
                at = self.folded.find(word, at + 1)
