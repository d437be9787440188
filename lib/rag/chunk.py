"""Cut documents into passages that the embedder reads whole, along their structure.

A passage is a section where one fits, else parts of one that are cut at the best border there is. Sections of a few
words are joined to the next. LangChain's and LlamaIndex's splitters were the alternative: theirs count tokens of pieces
that they join with new separators, so that offsets into the document and the limit of the embedder hold by and large,
and here they hold exactly.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from lib.rag.passage import Passage
from lib.rag.structure import is_code, outline
from lib.text.documents import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Where a section may be cut, the best places first: wide gaps (between functions), paragraphs, lines, sentences, words.
# At each of them the tokens of the two sides add up to those of the whole where a tokenizer never joins across white
# space or 。, as BERT's; others may count one more.
_BORDERS = [
    re.compile(pattern)
    for pattern in (r"\n\s*\n\s*\n(?=\S)", r"\n\s*\n", r"\n", r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])", r"\s+")
]
_PARAGRAPHS = 2  # of the borders, so many keep blocks of code whole
_SMALL = 4  # a section of less than a passage's fourth is joined to the next
_LONGEST_HEADING = 200  # characters


class _Piece(NamedTuple):
    start: int
    stop: int
    tokens: int
    heading: str
    section: int  # number of the section; pieces of one may overlap


class Chunker:
    """Cuts documents into passages of at most `chunk_tokens` tokens of `tokenizer`.

    A passage that continues a section repeats up to `overlap_tokens` of it, from a word's beginning on, within the
    limit. Every character that is not white space is in at least one passage.

    Args:
        tokenizer: the embedder's, without padding or truncation; texts with white space have to tokenize word by word.
        heading_tokens: of the headings that `reading` puts before a passage's text.
    """

    def __init__(self, tokenizer: Tokenizer, chunk_tokens: int, overlap_tokens: int, heading_tokens: int) -> None:
        self._tokenizer, self._chunk, self._overlap = tokenizer, chunk_tokens, overlap_tokens
        self._heading = heading_tokens

    def passages(self, document: Document) -> Iterator[Passage]:
        """The passages of `document`, in its order."""
        text = document.text
        title = next((kept["title"] for kept in document.kept if isinstance(kept.get("title"), str)), "")
        for start, end, heading in self._spans(text, title, is_code(document.id)):
            passage = text[start:end].strip()
            if passage:
                start += len(text[start:end]) - len(text[start:end].lstrip())
                at, heading = f"{document.id}:{start}", " ".join(heading.split())[:_LONGEST_HEADING]
                yield Passage(at, document.id, document.source, heading, start, start + len(passage), passage)

    def reading(self, passage: Passage) -> str:
        """What the embedder reads of a passage: the headings that it stands under, if it does not show them, and it."""
        shown = passage.text[: 2 * len(passage.heading)]
        missing = [name for name in passage.heading.split(" > ") if name and name not in shown]
        if not missing or not self._heading:
            return passage.text
        heading = " > ".join(missing)
        ends = [end for _, end in self._tokenizer.encode(heading, add_special_tokens=False).offsets]
        if len(ends) > self._heading:
            heading = heading[: ends[self._heading - 1]]
        return f"{heading}\n\n{passage.text}"

    def _spans(self, text: str, title: str, code: bool) -> Iterator[tuple[int, int, str]]:
        tokens = [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        if len(tokens) <= self._chunk:
            yield 0, len(text), title
            return
        repeated, size = 0, 0  # of the passage at hand: where it begins with its overlap, tokens of its own text
        first = last = _Piece(0, 0, 0, title, 0)
        for piece in self._all_pieces(text, tokens, title, code):
            new_section = piece.section != last.section
            room = self._chunk - (self._overlap if repeated < first.start else 0)
            if size and (size + piece.tokens > room or (new_section and size * _SMALL >= self._chunk)):
                yield repeated, last.stop, first.heading
                begin = piece.start if new_section else self._overlap_start(text, tokens, first.start, piece.start)
                repeated, first, size = begin, piece, 0
            elif not size:
                first = piece
            last, size = piece, size + piece.tokens
        yield repeated, last.stop, first.heading

    def _all_pieces(self, text: str, tokens: list[int], title: str, code: bool) -> Iterator[_Piece]:
        structure = outline(text, code)
        for number, (start, stop, heading) in enumerate(structure.sections(len(text), title)):
            blocks = [block for block in structure.blocks if start <= block[0] < stop]
            for left, right, count in self._pieces(text, tokens, start, stop, 0, blocks):
                yield _Piece(left, right, count, heading, number)

    def _pieces(
        self, text: str, tokens: list[int], start: int, stop: int, level: int, blocks: list[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int]]:
        """Tile text[start:stop] by (start, stop, tokens), cut no finer than needed for a passage with its overlap."""
        count = bisect_left(tokens, stop) - bisect_left(tokens, start)
        if count <= self._chunk - self._overlap:
            yield start, stop, count
        elif level < len(_BORDERS):
            cuts = [match.end() for match in _BORDERS[level].finditer(text, start, stop)]
            if level < _PARAGRAPHS:
                whole = [cut for cut in cuts if not any(left < cut < right for left, right in blocks)]
                edges = [edge for block in blocks for edge in block] if level == _PARAGRAPHS - 1 else []
                cuts = sorted({*whole, *edges})
            for left, right in pairwise([start, *(cut for cut in cuts if start < cut < stop), stop]):
                yield from self._pieces(text, tokens, left, right, level + 1, blocks)
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
