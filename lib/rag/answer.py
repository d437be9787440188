"""Ask a model about retrieved passages, and keep what it cites to what was retrieved.

A passage is data: the caller tokenizes it without special tokens, so that it cannot end the message it stands in, and a
line that looks like the beginning of another numbered passage is changed here. Whatever a passage asks for, a model
knows nothing to tell but what stands in its prompt: the conversation and these passages.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from lib.rag.passage import Hit

NOT_FOUND = "This is not in the documents."  # said in place of an answer where nothing is close enough
_INSTRUCTION = "Answer from these quoted passages only and cite them like [1]."
_LEAST_WORDS = 8  # a passage cut to fewer is left out
# [1], [1, 3]; and where code begins or ends, in which brackets are indices
_PARTS = re.compile(r"(?P<ticks>`+)|\[\s*(?P<numbers>\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]")
_NUMBERED_LINE = re.compile(r"(^|[\n\r\v\f\x85\u2028\u2029])\s*\[(\d+)\]")
_MAYBE_CITATION = re.compile(r"\[[\d\s,;]{0,40}$")


def prompt(question: str, passages: Sequence[str]) -> str:
    """The message to the model: the instruction, the passages under their numbers, the question."""
    quoted = (_NUMBERED_LINE.sub(r"\1(\2)", passage) for passage in passages)
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


class Citation(NamedTuple):
    number: int  # of the passage, from 1
    start: int  # answer[start:end] is [number]
    end: int


def only_retrieved(pieces: Iterable[str], passages: int) -> Generator[str, None, None]:
    """Stream an answer on without citations of passages that do not exist; see OnlyRetrieved."""
    citing = OnlyRetrieved(passages)
    for piece in pieces:
        yield citing.feed(piece)
    yield citing.rest()


class OnlyRetrieved:
    """Lets an answer through, piece by piece, without citations of passages that do not exist.

    [1] to [`passages`] stay, [1, 3] becomes [1][3]. What stands in backticks, and name[0], is code and stays as it is.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = self._last = ""
        self._code = False

    def feed(self, piece: str) -> str:
        """What is certain of the answer after one more piece of it."""
        text = _PARTS.sub(self._kept, self._held + piece)
        cut = _MAYBE_CITATION.search(text)
        self._held = text[cut.start() :] if cut else ""
        text = text[: len(text) - len(self._held)]
        self._last = text[-1:] or self._last
        return text

    def rest(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held

    def _kept(self, match: re.Match[str]) -> str:
        before = match.string[match.start() - 1] if match.start() else self._last
        if match["ticks"]:
            self._code ^= before != "`"  # else they go on with those of the piece before
            return match[0]
        if self._code or (match["numbers"] == "0" and before.isalnum()):
            return match[0]
        numbers = (int(number) for number in re.findall(r"\d+", match["numbers"]))
        kept = "".join(f"[{number}]" for number in numbers if 1 <= number <= self._passages)
        # Of [[9]7], taking [9] away would leave another.
        opened = _MAYBE_CITATION.search(match.string, 0, match.start())
        return kept or ("?" if opened else "")


def citations(answer: str, passages: int) -> Iterator[Citation]:
    """Where an answer that `OnlyRetrieved` let through cites which of its passages."""
    code = False
    for match in _PARTS.finditer(answer):
        if match["ticks"]:
            code = not code
        elif not code and match["numbers"].isdigit() and 1 <= int(match["numbers"]) <= passages:
            yield Citation(int(match["numbers"]), *match.span())


def cited(answer: str, hits: Sequence[Hit]) -> set[int]:
    """The numbers of the passages that `answer` cites."""
    return {citation.number for citation in citations(answer, len(hits))}
