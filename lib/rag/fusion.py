"""Two rankings made one."""

from __future__ import annotations

from collections.abc import Sequence

_K = 60


def reciprocal_ranks(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """The score of each item: the sum of 1 / (60 + its rank) over the rankings that have it.

    Cormack, Clarke and Büttcher 2009, doi:10.1145/1571941.1572114. Scores of one kind are enough for it, and those of
    BM25 and a cosine cannot be compared.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (_K + rank)
    return scores
