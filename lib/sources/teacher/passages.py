"""The pieces of documents that a teacher is asked about, drawn by a hash, so that one more moves no other."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lib.text.conversations import sentences
from lib.text.documents import Document


class Passage(NamedTuple):
    document: Document  # without its text
    number: int  # of the passage in the document, from 0
    text: str

    @property
    def id(self) -> str:
        return f"{self.document.id}#passage{self.number}"


def cut(text: str, least: int, most: int) -> Iterator[str]:
    """Neighbouring paragraphs of `least` to `most` words together; of a longer paragraph, its sentences.

    What fits into no passage is left out: a heading at the end, a sentence or a table of more than `most` words.
    """
    passage: list[str] = []
    words = 0
    for between, part, size in _parts(text, most):
        if words + size > most:
            if words >= least:
                yield "".join(passage)
            passage, words = [], 0
        if size <= most:
            passage += [between if passage else "", part]
            words += size
    if words >= least:
        yield "".join(passage)


def _parts(text: str, most: int) -> Iterator[tuple[str, str, int]]:
    """What stands before a part, the part (a paragraph, or a sentence of a long one) and its number of words."""
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip("\n").rstrip()
        size = len(paragraph.split())
        if 0 < size <= most:
            yield "\n\n", paragraph, size
        elif size:
            for number, sentence in enumerate(sentences(paragraph)):
                yield " " if number else "\n\n", sentence, len(sentence.split())


def _place(seed: int, id_: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{id_}".encode()).digest()


def choose(
    documents: Iterable[Document], most: Mapping[str, int | None], words: tuple[int, int], seed: int
) -> list[Passage]:
    """Passages of the sources in `most`, at most so many of each (None: all), in an order drawn by hash.

    Documents that come several times, as in a mixture with repeats, count once. Without None, memory holds no more than
    what is chosen.
    """
    chosen: dict[str, list[tuple[bytes, Passage]]] = {source: [] for source in most}
    seen: set[bytes] = set()
    for document in documents:
        limit = most.get(document.source, 0)
        mark = hashlib.sha256(document.id.encode()).digest()[:12]
        if limit == 0 or mark in seen:
            continue
        seen.add(mark)
        found = chosen[document.source]
        for number, text in enumerate(cut(document.text, *words)):
            passage = Passage(document._replace(text="", records="[]"), number, text)
            found.append((_place(seed, passage.id), passage))
        if limit is not None and len(found) > 2 * limit + 1000:
            found[:] = heapq.nsmallest(limit, found)
    return [passage for source, found in chosen.items() for _, passage in sorted(found)[: most[source]]]
