"""The filters of C4 (Raffel et al. 2020, https://jmlr.org/papers/v21/20-074.html) and FineWeb (Penedo et al. 2024,
https://arxiv.org/abs/2406.17557), made for web pages.

They decide as datatrove 0.10.1's C4QualityFilter and FineWebQualityFilter do; see tests/text/test_filters.py.
"""

from __future__ import annotations

import re
import sys

from datatrove.data import Document as Row
from datatrove.pipeline.filters.c4_filters import CITATION_REGEX, END_PUNCTUATION, POLICY_SUBSTRINGS
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import TERMINAL_PUNCTUATION

from lib.params.clean import C4, FineWeb
from lib.text.analysis import Analysis, analyse
from lib.text.blocks import Rejects
from lib.text.steps import Step

_POLICY = re.compile("|".join(map(re.escape, POLICY_SUBSTRINGS)))
_STOP_CHARACTERS = tuple(TERMINAL_PUNCTUATION)


_LEFT = "c4_left"  # key of a row's metadata


class C4Quality(Step):
    """Drops lines that are no sentence, then documents with too few sentences left.

    With `defer`, the lines stay until `C4Lines` takes them out: other filters can then look at the whole text, and need
    not look at what this one, which is cheap, drops.
    """

    name = "c4"

    def __init__(self, rules: C4, rejects: Rejects | None = None, defer: bool = False) -> None:
        super().__init__(rejects)
        self._rules, self._defer = rules, defer

    def apply(self, row: Row) -> str | None:
        rules, text = self._rules, analyse(row.text)
        suspect = self._is_suspect(text)
        citations = rules.remove_citations and "[" in row.text
        wanted, longest = rules.min_num_sentences or 0, rules.max_word_length or sys.maxsize
        sentences, kept = 0, []
        for whole in map(str.strip, text.lines):
            words = whole.split()
            if len(whole) > longest and max(map(len, words)) > longest:
                self._remove("max_word_length", whole)
                continue
            line = CITATION_REGEX.sub("", whole) if citations else whole
            if len(line) < len(whole):
                self.removed["citations"] += len(whole) - len(line)
            if rules.filter_no_terminal_punct and (not line.endswith(END_PUNCTUATION) or line.endswith("...")):
                self._remove("no_terminal_punct", line)
                continue
            if len(words) < rules.min_words_per_line:
                self._remove("min_words_per_line", line)
                continue
            if suspect:
                lower = line.lower()
                if rules.filter_lorem_ipsum and "lorem ipsum" in lower:
                    return "c4_lorem_ipsum"
                if rules.filter_javascript and "javascript" in lower:
                    self._remove("javascript", line)
                    continue
                if rules.filter_curly_bracket and "{" in line:
                    return "c4_curly_bracket"
                if rules.filter_policy and _POLICY.search(lower):
                    self._remove("policy", line)
                    continue
            if sentences < wanted:
                sentences += text.count_sentences(line, wanted - sentences)
            kept.append(line)
        if sentences < wanted:
            return "c4_min_num_sentences"
        left = "\n".join(kept).strip()
        if self._defer:
            row.metadata[_LEFT] = left
        else:
            row.text = left
        return None

    def _is_suspect(self, text: Analysis) -> bool:
        """Whether any line can break a rule on what it says."""
        rules, lower = self._rules, text.lower
        return bool(
            (rules.filter_curly_bracket and "{" in lower)
            or (rules.filter_lorem_ipsum and "lorem ipsum" in lower)
            or (rules.filter_javascript and "javascript" in lower)
            or (rules.filter_policy and _POLICY.search(lower))
        )

    def _remove(self, kind: str, line: str) -> None:
        self.removed[kind] += len(line)


class C4Lines(Step):
    """Takes out the lines that `C4Quality` put off."""

    name = "c4_lines"

    def apply(self, row: Row) -> str | None:
        row.text = row.metadata.pop(_LEFT)
        return None


class FineWebQuality(Step):
    """Drops lists, pages of short lines, and pages that repeat lines."""

    name = "fineweb"

    def __init__(self, rules: FineWeb, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules

    def apply(self, row: Row) -> str | None:
        rules, text = self._rules, row.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if rules.line_punct_thr is not None:
            ratio = sum(line.endswith(_STOP_CHARACTERS) for line in lines) / len(lines)
            if ratio < rules.line_punct_thr and not (ratio == 0 and rules.line_punct_exclude_zero):
                return "fineweb_line_punct_thr"
        if rules.short_line_thr is not None:
            short = sum(len(line) <= rules.short_line_length for line in lines)
            if short / len(lines) > rules.short_line_thr:
                return "fineweb_short_line_thr"
        breaks = text.count("\n")
        if rules.char_duplicates_ratio is not None:
            repeated = find_duplicates(lines)[1] / (len(text) - breaks)
            if repeated > rules.char_duplicates_ratio:
                return "fineweb_char_duplicates_ratio"
        if rules.new_line_ratio is not None and breaks / len(analyse(text).words.lengths) > rules.new_line_ratio:
            return "fineweb_new_line_ratio"
        return None
