"""The words of a text, as the keyword search counts them. SQLite folds accents and English endings after that."""

from __future__ import annotations

import re
import unicodedata

# Scripts without spaces between words: Thai to Khmer, kana, Han, Hangul aside. Their runs are cut into overlapping
# pairs, as Lucene's CJKAnalyzer does: a pair is found wherever the word is that it lies in.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"([{_UNSPACED}]+)|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Letters and digits in a row, in order, without case and compatibility forms (full-width ones, ligatures)."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        if run[1] is None or len(run[1]) == 1:
            found.append(run[0])
        else:
            found += map("".join, zip(run[1], run[1][1:], strict=False))
    return found
