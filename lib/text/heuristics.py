"""Simple heuristics on a document's words and lines, and the user's own block-list.

They need no more than blanks to find words, so they hold for any language that writes them, and for code.
"""

from __future__ import annotations

import re

from datatrove.data import Document as Row
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

from lib.params import clean
from lib.text.blocks import Rejects
from lib.text.steps import Step


def _outside(value: float, low: float | None, high: float | None) -> str | None:
    if low is not None and value < low:
        return "min"
    return "max" if high is not None and value > high else None


class Heuristics(Step):
    """Drops a document at the first rule that it breaks; the reason is the rule's name in params.yaml."""

    name = "heuristics"

    def __init__(self, rules: clean.Heuristics, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules

    def apply(self, row: Row) -> str | None:
        text, rules, words = row.text, self._rules, row.text.split()
        if side := _outside(len(words), rules.min_words, rules.max_words):
            return f"{side}_words"
        length = sum(map(len, words)) / len(words)
        if side := _outside(length, rules.min_mean_word_length, rules.max_mean_word_length):
            return f"{side}_mean_word_length"
        symbols = max(text.count("#"), text.count("...") + text.count("…"))
        if _outside(symbols / len(words), None, rules.max_symbol_word_ratio):
            return "max_symbol_word_ratio"
        if rules.min_alphabetic_words is not None:
            alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)
            if alphabetic / len(words) < rules.min_alphabetic_words:
                return "min_alphabetic_words"
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if _outside(find_duplicates(lines)[0] / len(lines), None, rules.max_duplicate_lines):
            return "max_duplicate_lines"
        if _outside(max(map(len, text.split("\n"))), None, rules.max_line_length):
            return "max_line_length"
        return None


class BlockList(Step):
    """Drops documents that hold a phrase of the list: whole words, in any case, with any blanks between them."""

    name = "block_list"

    def __init__(self, rules: clean.BlockList, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        phrases = sorted({tuple(phrase.lower().split()) for phrase in rules.phrases})
        either = "|".join(r"\s+".join(map(re.escape, words)) for words in phrases)
        self._pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)")

    def apply(self, row: Row) -> str | None:
        return "block_list" if self._pattern.search(row.text.lower()) else None
