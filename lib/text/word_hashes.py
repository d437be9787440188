"""Words as comparisons of texts see them, and n-grams of them as numbers.

Case, blanks, punctuation, quotation marks and accents make no difference; numbers do.
"""

from __future__ import annotations

import functools
import re
import unicodedata

import numpy as np
from datatrove.utils.hashes.sha1 import sha1_hash64

# Kana, ideographs, Thai, Lao, Burmese and Khmer are written without blanks: there, a sign is a word. Modifier letters
# are left out: one of them is an apostrophe.
_NO_BLANKS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_NO_BLANKS}]|[^\W_\u02b0-\u02ff{_NO_BLANKS}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_MARKS = re.compile(r"[\u0300-\u036f]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word of an n-gram is lost


def _folded(text: str) -> tuple[re.Pattern[str], str]:
    """`text` in small letters, without accents, and the pattern of its words."""
    if text.isascii():
        return _ASCII_WORD, text.lower()
    return _WORD, _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold()


def words(text: str) -> list[str]:
    """The words of `text`, in small letters, without accents."""
    pattern, folded = _folded(text)
    return pattern.findall(folded)


def gaps(text: str) -> list[str]:
    """What stands before, between and behind its words: one more than there are of these."""
    pattern, folded = _folded(text)
    return pattern.split(folded)


_hash = functools.lru_cache(2**16)(sha1_hash64)  # bounded; most words of a text are common ones


def hashes(found: list[str]) -> np.ndarray:
    """A number for each word: uint64, shape (words,)."""
    return np.fromiter(map(_hash, found), np.uint64, len(found))


@functools.lru_cache(1)  # several who look at one text after the other
def hashes_of(text: str) -> np.ndarray:
    """The hashes of the words of `text`, read only."""
    numbers = hashes(words(text))
    numbers.flags.writeable = False
    return numbers


def ngrams(numbers: np.ndarray, n: int) -> np.ndarray:
    """A number for each `n` neighbours (Karp and Rabin 1987, modulo 2^64): uint64, shape (len(numbers) - n + 1,)."""
    count = max(0, len(numbers) - n + 1)
    value = numbers[:count].copy()
    for start in range(1, n):
        value *= _FACTOR
        value += numbers[start : start + count]
    return value
