"""Documents packed into rows of the model's context, none cut that would fit, no token thrown away.

A document longer than a row is cut into full rows and a remainder. Remainders and short documents are packed best fit,
longest first, as in Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (https://arxiv.org/abs/2404.10830).
What room is left at the end of a row is padding.

A piece of a row is a run of tokens of one document, which the model is to predict; at each position it reads the token
before. So a piece loses no prediction where a document was cut, and a document's first token is predicted from the
separator that stands before every document: as when a trained model is asked for text, or scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
    """Rows of `context_length` tokens at most, in an order in which the first ones are like the rest."""

    pieces: np.ndarray  # (P, 2) uint32: where in the shard a piece starts, and its length; row after row
    rows: np.ndarray  # (R,) int64: where in `pieces` each row starts


def _ranges(counts: np.ndarray) -> np.ndarray:
    """0, 1, ..., counts[0] - 1, 0, 1, ..., counts[1] - 1 and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def cut(starts: np.ndarray, lengths: np.ndarray, context_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths (P,) of the pieces of all documents (N,), none longer than `context_length`."""
    counts = -(-lengths // context_length)
    within = _ranges(counts) * context_length
    return np.repeat(starts, counts) + within, np.minimum(np.repeat(lengths, counts) - within, context_length)


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Best fit decreasing: each piece, longest first, goes to the row with the least room that it fits into.

    Pieces of one length and rows of one room are placed all at once, so that a million pieces take seconds.

    Args:
        lengths: (P,) from 1 to `capacity`.

    Returns:
        (P,) int64: the row of each piece, counted from 0.
    """
    rows_of = np.empty(len(lengths), np.int64)
    opened = 0
    by_room: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]
    has_rows = np.zeros(capacity + 1, bool)

    def put(rows: np.ndarray, room: int) -> None:
        if len(rows):
            by_room[room].append(rows)
            has_rows[room] = True

    longest_first = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[longest_first])) + 1
    for pieces in np.split(longest_first, borders):
        if not len(pieces):
            continue
        length = int(lengths[pieces[0]])
        while len(pieces):
            room = length + int(has_rows[length:].argmax())
            if has_rows[room]:
                rows = by_room[room].pop()
                has_rows[room] = bool(by_room[room])
            else:
                room = capacity
                rows = np.arange(opened, opened + -(-len(pieces) // (capacity // length)))
                opened += len(rows)
            # A row that took a piece and has room for another is now the best fit: it is filled before the next one.
            each = room // length
            filled, partly = divmod(min(len(pieces), each * len(rows)), each)
            placed = filled * each + partly
            rows_of[pieces[:placed]] = np.repeat(rows, each)[:placed]
            put(rows[:filled], room - each * length)
            put(rows[filled : filled + 1], room - partly * length)
            put(rows[filled + 1 :], room)
            pieces = pieces[placed:]
    return rows_of


def pack(starts: np.ndarray, tokens: int, context_length: int) -> Packing:
    """Pack the documents of a shard of fewer than 2^32 tokens.

    Args:
        starts: (N,) int64, where in the shard each document starts, in order and from 0; none is empty.
        tokens: the length of the shard.
    """
    starts, lengths = cut(starts, np.diff(starts, append=tokens), context_length)
    rows_of = best_fit(lengths, context_length)
    # Longest first is no order to read a part of the rows in, as validation does.
    shuffled = np.random.Generator(np.random.Philox(0)).permutation(int(rows_of.max(initial=-1)) + 1)
    rows_of = shuffled[rows_of]
    by_row = np.lexsort((starts, rows_of))
    rows = np.flatnonzero(np.diff(rows_of[by_row], prepend=-1))
    return Packing(np.stack([starts, lengths], axis=1)[by_row].astype(np.uint32), rows)
