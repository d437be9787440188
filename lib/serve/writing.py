"""From tokens to the text that a client gets: whole characters, cut at the first stop text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lib.serve.model import Token


class Piece(NamedTuple):
    text: str
    tokens: list[Token]  # those that begin in `text`
    count: int  # tokens written since the piece before


class Done(NamedTuple):
    finish: str  # stop: by the model or a stop text; length: by the limit
    tokens: int  # that the model wrote, a stop text included


def write(tokens: Iterable[Token], stops: Sequence[str], max_tokens: int) -> Iterator[Piece | Done]:
    """Pieces of the text as soon as they are certain, and then how it ended.

    What could be the beginning of a stop text is held back until more is known.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    held, given, waiting = "", 0, []  # given: characters so far; waiting: tokens and where they begin
    count = counted = 0
    for token in tokens:
        count += 1
        waiting.append((given + len(held), token))
        held += decoder.decode(token.text)
        found = _first(held, stops)
        certain = len(held) - _beginning(held, stops) if found is None else found
        if certain:
            given += certain
            yield Piece(held[:certain], [known for start, known in waiting if start < given], count - counted)
            counted = count
            waiting = [(start, known) for start, known in waiting if start >= given]
            held = held[certain:]
        if found is not None:
            yield Done("stop", count)
            return
    held += decoder.decode(b"", final=True)
    if held or waiting:
        yield Piece(held, [known for _, known in waiting], count - counted)
    yield Done("stop" if count < max_tokens else "length", count)


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop text begins."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _beginning(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop text begins with."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), 0)
