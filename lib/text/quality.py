"""Heuristic filters on a document's words and lines, after Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446).

datatrove's own Gopher filters split words with spaCy, at 0.3 MB/s. These rules need no more than blanks, so one split
serves all of them.
"""

from __future__ import annotations

from datatrove.data import Document as Row
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

from lib.params.text import CleanRules
from lib.text.blocks import Rejects


class Quality(BaseFilter):
    """Drops a document at the first rule that it breaks; the reason is the rule's name in params.yaml."""

    name = "Quality"

    def __init__(self, rules: CleanRules, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self.rules = rules

    def filter(self, doc: Row) -> bool | tuple[bool, str]:
        reason = broken_rule(doc.text, self.rules)
        return True if reason is None else (False, reason)


def _outside(value: float, low: float | None, high: float | None) -> str | None:
    if low is not None and value < low:
        return "min"
    return "max" if high is not None and value > high else None


def broken_rule(text: str, rules: CleanRules) -> str | None:
    """The first rule that `text` breaks: the name of a field of `CleanRules`, `empty`, or None."""
    words = text.split()
    if not words:
        return "empty"
    if side := _outside(len(words), rules.min_words, rules.max_words):
        return f"{side}_words"
    length = sum(map(len, words)) / len(words)
    if side := _outside(length, rules.min_mean_word_length, rules.max_mean_word_length):
        return f"{side}_mean_word_length"
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    if _outside(symbols / len(words), None, rules.max_symbol_word_ratio):
        return "max_symbol_word_ratio"
    if rules.min_alphabetic_words is not None:
        alphabetic = sum(any(map(str.isalpha, word)) for word in words)
        if alphabetic / len(words) < rules.min_alphabetic_words:
            return "min_alphabetic_words"
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if _outside(find_duplicates(lines)[0] / len(lines), None, rules.max_duplicate_lines):
        return "max_duplicate_lines"
    if _outside(max(map(len, text.split("\n"))), None, rules.max_line_length):
        return "max_line_length"
    return None
