"""Ask a model about retrieved passages, and keep what it cites to what was retrieved.

A passage is data: the caller tokenizes it without special tokens, so that it cannot end the message it stands in, and a
line that looks like the beginning of another numbered passage is changed here.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from lib.rag.passage import Hit

_INSTRUCTION = "Answer from these quoted passages only and cite them like [1]."
_LEAST_WORDS = 8  # a passage cut to fewer is left out
_CITATION = re.compile(r"\[(\d{1,3})\]")
_MAYBE_CITATION = re.compile(r"\[\d{0,3}$")


def prompt(question: str, passages: Sequence[str]) -> str:
    """The message to the model: the instruction, the passages under their numbers, the question."""
    quoted = (re.sub(r"^\s*\[(\d+)\]", r"(\1)", passage, flags=re.MULTILINE) for passage in passages)
    numbered = [f"[{number}] {passage}" for number, passage in enumerate(quoted, start=1)]
    return "\n\n".join([_INSTRUCTION, *numbered, question])


class Grounded(NamedTuple):
    prompt: str
    hits: list[Hit]  # the passages that are in the prompt, in the order of their numbers
    shortened: bool  # the last of them was cut to fit


def ground(question: str, hits: Sequence[Hit], fits: Callable[[str], bool]) -> Grounded:
    """The prompt with as many of `hits` as fit, best first; the first that does not fit is cut after a word.

    Args:
        fits: whether a prompt leaves the model room to answer.
    """
    passages: list[str] = []
    for hit in hits:
        text = hit.passage.text
        if fits(prompt(question, [*passages, text])):
            passages.append(text)
            continue
        ends = [word.end() for word in re.finditer(r"\S+", text)]
        words = bisect_left(ends, True, key=lambda end: not fits(prompt(question, [*passages, text[:end]])))
        if words >= _LEAST_WORDS:
            passages.append(text[: ends[words - 1]])
        break
    used = list(hits[: len(passages)])
    shortened = any(len(text) < len(hit.passage.text) for text, hit in zip(passages, used, strict=True))
    return Grounded(prompt(question, passages), used, shortened)


def only_retrieved(pieces: Iterable[str], passages: int) -> Generator[str, None, None]:
    """Stream an answer on without citations of passages that do not exist; [1] to [`passages`] stay."""
    held = ""
    for piece in pieces:
        text = _CITATION.sub(lambda match: match[0] if 1 <= int(match[1]) <= passages else "", held + piece)
        cut = _MAYBE_CITATION.search(text)
        held = text[cut.start() :] if cut else ""
        yield text[: len(text) - len(held)]
    yield held


def cited(answer: str, hits: Sequence[Hit]) -> set[int]:
    """The numbers of the passages that `answer` cites."""
    return {int(match[1]) for match in _CITATION.finditer(answer)} & set(range(1, len(hits) + 1))
