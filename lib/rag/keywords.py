"""Search by words: BM25 over the inverted index that SQLite keeps (FTS5; k1 = 1.2, b = 0.75).

FTS5 and not bm25s or rank_bm25: those hold everything in memory and are built anew for each change; this one is changed
with the documents, in their transaction, knows sources by a join, and is in Python already.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from lib.rag.words import words

_MOST_TERMS = 64  # of a question
_HEADING_WEIGHT = 2.0  # a word of a heading counts as two of the text


class Match(NamedTuple):
    """A passage that shares words with a question."""

    number: int  # of the passage
    bm25: float  # higher is better
    share: float  # of the question's words, weighted by how rare they are: 1 where all of them occur


def search(db: sqlite3.Connection, question: str, limit: int, sources: Collection[str] | None) -> list[Match]:
    """The passages with the highest BM25, best first (Robertson and Zaragoza 2009, doi:10.1561/1500000019).

    Words that more than half of the passages have say nothing, and are left out where there are others.

    Args:
        sources: only passages from these; None: all.
    """
    (total,) = db.execute("SELECT count(*) FROM passages").fetchone()
    terms = [f'"{word}"' for word in dict.fromkeys(words(question))][:_MOST_TERMS]
    frequencies = {term: _frequency(db, term) for term in terms}
    known = [term for term in terms if frequencies[term]]
    asked = [term for term in known if frequencies[term] <= total / 2] or known
    if not asked:
        return []
    of_sources, values = "", [" OR ".join(asked)]
    if sources is not None:  # else nothing is read of the passages themselves, which takes more than half of the time
        of_sources = f"AND (SELECT source FROM passages WHERE number = words.rowid) IN ({_marks(sources)})"
        values += sorted(sources)
    rows = db.execute(
        f"SELECT rowid, -bm25(words, {_HEADING_WEIGHT}, 1.0) AS score FROM words WHERE words MATCH ? {of_sources} "
        f"ORDER BY score DESC, rowid LIMIT ?",
        [*values, limit],
    ).fetchall()
    weights = {term: math.log1p((total - count + 0.5) / (count + 0.5)) for term, count in frequencies.items()}
    found = dict.fromkeys((number for number, _ in rows), 0.0)
    for term in known:
        for number in _with(db, term, found):
            found[number] += weights[term]
    everything = sum(weights.values())
    return [Match(number, score, found[number] / everything) for number, score in rows]


def _frequency(db: sqlite3.Connection, term: str) -> int:
    """How many passages have `term`."""
    return db.execute("SELECT count(*) FROM words WHERE words MATCH ?", [term]).fetchone()[0]


def _with(db: sqlite3.Connection, term: str, numbers: Collection[int]) -> list[int]:
    """Which of the passages `numbers` have `term`."""
    rows = db.execute(f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({_marks(numbers)})", [term, *numbers])
    return [number for (number,) in rows]


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
