"""Cut documents into passages that the embedder reads whole."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from lib.rag.passage import Passage
from lib.text.documents import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Where a text may be cut, the best places first: paragraphs, lines, sentences, words. At each of them the tokens of the
# two sides add up to those of the whole, because the embedder's tokenizer never joins across white space or 。
_BORDERS = [re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])", r"\s+")]


class Chunker:
    """Cuts documents into passages of at most `chunk_tokens` tokens of `tokenizer`.

    A passage that continues another repeats up to `overlap_tokens` of it, from a word's beginning on, within the limit.
    Every character that is not white space is in at least one passage.

    Args:
        tokenizer: the embedder's, without padding or truncation; texts with white space have to tokenize word by word.
    """

    def __init__(self, tokenizer: Tokenizer, chunk_tokens: int, overlap_tokens: int) -> None:
        self._tokenizer, self._chunk, self._overlap = tokenizer, chunk_tokens, overlap_tokens

    def passages(self, document: Document) -> Iterator[Passage]:
        """The passages of `document`, in its order."""
        text = document.text
        title = next((kept["title"] for kept in document.kept if isinstance(kept.get("title"), str)), "")
        for start, end in self._spans(text):
            passage = text[start:end].strip()
            if passage:
                start += len(text[start:end]) - len(text[start:end].lstrip())
                at = f"{document.id}:{start}"
                yield Passage(at, document.id, document.source, title, start, start + len(passage), passage)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        tokens = [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        if len(tokens) <= self._chunk:
            yield 0, len(text)
            return
        overlap = begin = end = size = 0
        for start, stop, count in self._pieces(text, tokens, 0, len(text), 0):
            # Only the first passage has no overlap to leave room for.
            if size and size + count > self._chunk - (self._overlap if begin else 0):
                yield overlap, end
                overlap, begin, size = self._overlap_start(text, tokens, begin, start), start, 0
            end, size = stop, size + count
        yield overlap, end

    def _pieces(
        self, text: str, tokens: list[int], start: int, stop: int, level: int
    ) -> Iterator[tuple[int, int, int]]:
        """Tile text[start:stop] by (start, stop, tokens), cut no finer than needed for a passage with its overlap."""
        count = bisect_left(tokens, stop) - bisect_left(tokens, start)
        if count <= self._chunk - self._overlap:
            yield start, stop, count
        elif level < len(_BORDERS):
            cuts = [match.end() for match in _BORDERS[level].finditer(text, start, stop)]
            edges = [start, *(cut for cut in cuts if cut < stop), stop]
            for left, right in pairwise(edges):
                yield from self._pieces(text, tokens, left, right, level + 1)
        else:
            yield from self._halves(text, start, stop)

    def _halves(self, text: str, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """A word that is too long: counted anew for each part, and given as full so that nothing is joined to it."""
        count = len(self._tokenizer.encode(text[start:stop], add_special_tokens=False).ids)
        if count <= self._chunk - self._overlap or stop - start == 1:
            yield start, stop, self._chunk
        else:
            middle = (start + stop) // 2
            yield from self._halves(text, start, middle)
            yield from self._halves(text, middle, stop)

    def _overlap_start(self, text: str, tokens: list[int], previous: int, begin: int) -> int:
        """Where the passage whose own text begins at `begin` starts to repeat the one that begins at `previous`."""
        if not text[begin - 1].isspace():
            return begin
        here = bisect_left(tokens, begin)
        first = max(here - self._overlap, bisect_left(tokens, previous) + 1)
        return next((start for start in tokens[first:here] if text[start - 1].isspace()), begin)
