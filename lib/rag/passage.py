"""What is retrieved: a stretch of a document, and how near it is to a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Passage:
    """A stretch of a document that the embedder reads whole."""

    id: str  # <document>:<start>
    document: str  # id of the document that it was cut from: <source>/<path inside the source>[#<number>]
    source: str
    heading: str  # the title of the document, or the headings that the passage stands under; empty where it has none
    start: int  # text == document.text[start:end]
    end: int
    text: str


class Hit(NamedTuple):
    passage: Passage
    score: float  # higher is nearer; what it means is the search mode's
