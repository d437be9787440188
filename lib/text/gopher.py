"""The filters of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A.1) with datatrove's thresholds.

They decide as datatrove 0.10.1's GopherQualityFilter and GopherRepetitionFilter do; see tests/text/test_filters.py. A
threshold of null leaves its test out.
"""

from __future__ import annotations

import re

import numpy as np
from datatrove.data import Document as Row
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

from lib.params.clean import GopherQuality, GopherRepetition
from lib.text.analysis import Analysis, analyse
from lib.text.blocks import Rejects
from lib.text.steps import Step
from lib.text.words import ALPHABETIC, SYMBOL, Words, word_hash

_LINES, _PARAGRAPHS = re.compile("\n+"), re.compile("\n{2,}")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the rolling hash: odd, so that no information is lost


class Quality(Step):
    name = "gopher_quality"

    def __init__(self, rules: GopherQuality, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules
        self._stop_words = {word_hash(word) for word in rules.stop_words}

    def apply(self, row: Row) -> str | None:
        broken = self._broken(analyse(row.text))
        return f"gopher_{broken}" if broken else None

    def _broken(self, text: Analysis) -> str | None:
        rules, words = self._rules, text.words
        count = len(words.lengths)
        proper = words.lengths[words.flags & SYMBOL == 0]
        mean = proper.mean() if len(proper) else 0.0
        symbols = max(text.text.count("#"), text.text.count("...") + text.text.count("…"))
        if rules.min_doc_words is not None and len(proper) < rules.min_doc_words:
            return "min_doc_words"
        if rules.max_doc_words is not None and len(proper) > rules.max_doc_words:
            return "max_doc_words"
        if rules.min_avg_word_length is not None and mean < rules.min_avg_word_length:
            return "min_avg_word_length"
        if rules.max_avg_word_length is not None and mean > rules.max_avg_word_length:
            return "max_avg_word_length"
        if rules.max_symbol_word_ratio is not None and symbols / count > rules.max_symbol_word_ratio:
            return "max_symbol_word_ratio"
        lines = text.lines
        if rules.max_bullet_lines_ratio is not None:
            bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
            if bullets / len(lines) > rules.max_bullet_lines_ratio:
                return "max_bullet_lines_ratio"
        if rules.max_ellipsis_lines_ratio is not None and symbols:
            ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
            if ellipses / len(lines) > rules.max_ellipsis_lines_ratio:
                return "max_ellipsis_lines_ratio"
        if rules.max_non_alpha_words_ratio is not None:
            alphabetic = np.count_nonzero(words.flags & ALPHABETIC)
            if alphabetic / count < rules.max_non_alpha_words_ratio:
                return "max_non_alpha_words_ratio"
        if rules.min_stop_words is not None:
            found = self._stop_words.intersection(words.hashes.tolist())
            if len(found) < rules.min_stop_words:
                return "min_stop_words"
        return None


class Repetition(Step):
    name = "gopher_repetition"

    def __init__(self, rules: GopherRepetition, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules
        self._top = dict(rules.top_n_grams)
        self._duplicated = dict(rules.dup_n_grams)

    def apply(self, row: Row) -> str | None:
        broken = self._repeated_lines(row.text) or self._repeated_words(analyse(row.text).words, len(row.text))
        return f"gopher_{broken}" if broken else None

    def _repeated_lines(self, text: str) -> str | None:
        rules = self._rules
        for parts, kind, most, most_characters in (
            (_PARAGRAPHS.split(text.strip()), "para", rules.dup_para_frac, rules.dup_para_char_frac),
            (_LINES.split(text), "line", rules.dup_line_frac, rules.dup_line_char_frac),
        ):
            if len(set(parts)) == len(parts):
                continue
            repeated, characters = find_duplicates(parts)
            if most is not None and repeated / len(parts) > most:
                return f"dup_{kind}_frac"
            if most_characters is not None and characters / len(text) > most_characters:
                return f"dup_{kind}_char_frac"
        return None

    def _repeated_words(self, words: Words, characters: int) -> str | None:
        """The first limit that n-grams break, those of `top_n_grams` and `dup_n_grams` in order of n.

        An n-gram that occurs twice begins with an (n-1)-gram that does: each n looks at what the last one left.
        """
        count = len(words.lengths)
        ends = np.concatenate([[0], np.cumsum(words.lengths)])  # characters before each word, blanks left out
        at, hashes = np.arange(count), words.hashes  # where the n-grams that are left begin, and their hashes
        for n in range(2, max([*self._top, *self._duplicated], default=1) + 1):
            if n > count or not (len(at) or n in self._top):
                return None
            if len(at) and at[-1] + n > count:
                at, hashes = at[at + n <= count], hashes[at + n <= count]
            hashes = hashes * _MULTIPLIER + words.hashes[at + (n - 1)]
            group, times = _groups(hashes)
            if n in self._top:
                first, often = 0, 1  # where none repeats, datatrove takes the first
                if len(times) and (most := int(times.max())) > 1:
                    first, often = int(at[np.argmax(times[group] == most)]), most
                length = int(ends[first + n] - ends[first]) + n - 1
                if length * often / characters > self._top[n]:
                    return f"top_{n}_gram"
            if len(times) == len(at):
                at, hashes, group = at[:0], hashes[:0], group[:0]
            else:
                repeats = times[group] > 1
                at, hashes, group = at[repeats], hashes[repeats], group[repeats]
            if n in self._duplicated and len(at):
                limit = self._duplicated[n] * characters
                if _covered(at, group, n, ends) > limit and _repeated(at, group, n, ends) > limit:
                    return f"dup_{n}_gram"
        return None


def _groups(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distinct values each of `hashes` is, and how often each of those occurs."""
    if not len(hashes):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = hashes.argsort()
    ranked = hashes[order]
    new = np.empty(len(ranked), bool)
    new[0] = True
    np.not_equal(ranked[1:], ranked[:-1], out=new[1:])
    number = new.cumsum()
    group = np.empty_like(number)
    group[order] = number - 1
    return group, np.bincount(group)


def _covered(at: np.ndarray, group: np.ndarray, n: int, ends: np.ndarray) -> int:
    """At most how many characters repeated n-grams can hold: those of all that occurred before, overlaps once."""
    first = np.zeros(len(at), bool)
    first[np.unique(group, return_index=True)[1]] = True
    later = at[~first]
    until = np.minimum(later + n, np.append(later[1:], len(ends) - 1))
    return int((ends[until] - ends[later]).sum())


def _repeated(at: np.ndarray, group: np.ndarray, n: int, ends: np.ndarray) -> int:
    """Characters of the n-grams that occurred before, read from left to right without overlap."""
    seen: set[int] = set()
    total = free = 0
    for start, key in zip(at.tolist(), group.tolist(), strict=True):
        if start < free:
            continue
        if key in seen:
            total += int(ends[start + n] - ends[start])
            free = start + n
        else:
            seen.add(key)
    return total
