"""One text, taken apart once for all filters that read it."""

from __future__ import annotations

from functools import cached_property, lru_cache

from lib.text.words import Vocabulary, Words

_vocabulary = Vocabulary()


class Analysis:
    """What filters ask about a text, each found when first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> Words:
        return _vocabulary.split(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Its lines, whatever ends them (`str.splitlines`)."""
        return self.text.splitlines()

    @cached_property
    def lower(self) -> str:
        return self.text.lower()

    @staticmethod
    def count_sentences(line: str, at_most: int) -> int:
        """How many sentences a line of this text has, counted up to `at_most`."""
        return _vocabulary.count_sentences(line, at_most)


@lru_cache(maxsize=1)
def analyse(text: str) -> Analysis:
    """The analysis of `text`. Blocks see one text after the other, so the last one is all that need be remembered."""
    return Analysis(text)
