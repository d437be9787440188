"""Headers, footers and page numbers of paged documents, whose pages are separated by form feeds in the raw text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from datatrove.data import Document as Row

from lib.params import clean
from lib.text.blocks import Rejects
from lib.text.steps import Step

_NUMBER = re.compile(r"\d+")
_LETTER = re.compile(r"[^\W\d_]")


def _keys(line: str, page: int) -> Iterator[tuple[str, int | None]]:
    """What a line has in common with the same header of other pages: its text, or its text around the page's number.

    A row of a table has numbers too, but not one that grows by one from page to page.
    """
    yield line, None
    for number in _NUMBER.finditer(line):
        if len(number[0]) < 10:
            yield f"{line[: number.start()]}\f{line[number.end() :]}", int(number[0]) - page


class Pages(Step):
    """Takes the repeated lines off the top and bottom of pages and joins the pages."""

    name = "pages"

    def __init__(self, rules: clean.Pages, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules

    def apply(self, row: Row) -> str | None:
        if "\f" in row.text:
            row.text = self._join(self._without_edges([page.splitlines() for page in row.text.split("\f")]))
        return None

    def _edges(self, lines: list[str]) -> Iterator[tuple[int, str]]:
        """Where the first and last lines of a page that are not blank stand, and at which edge."""
        filled = [index for index, line in enumerate(lines) if line.strip()]
        most = self._rules.edge_lines
        for number, index in enumerate(filled):
            if number < most:
                yield index, "top"
            if number >= len(filled) - most:
                yield index, "bottom"

    def _without_edges(self, pages: list[list[str]]) -> list[list[str]]:
        rules = self._rules
        if len(pages) < rules.min_pages:
            return pages
        counts: Counter[tuple[str, str, int | None]] = Counter()
        for page, lines in enumerate(pages):
            counts.update(
                {(edge, *key) for index, edge in self._edges(lines) for key in _keys(lines[index].strip(), page)}
            )
        often = max(rules.min_pages, rules.min_share * len(pages))
        kept = []
        for page, lines in enumerate(pages):
            repeated = {
                index
                for index, edge in self._edges(lines)
                if any(counts[edge, *key] >= often for key in _keys(lines[index].strip(), page))
            }
            for index in repeated:
                self.removed["headers" if _LETTER.search(lines[index]) else "page_numbers"] += len(lines[index])
            kept.append([line for index, line in enumerate(lines) if index not in repeated])
        return kept

    @staticmethod
    def _join(pages: list[list[str]]) -> str:
        """One text; a sentence that runs over the end of a page stays in one paragraph."""
        text = ""
        for lines in pages:
            page = "\n".join(lines).strip("\n")
            if page.strip():
                runs_on = text and text[-1] not in ".!?:;\"'”’)" and page.lstrip()[0].islower()
                text += ("\n" if runs_on else "\n\n") * bool(text) + page
        return text
