"""The documents behind the model that cites them: what is retrieved for a conversation, and what may be shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

from lib.completion.chat_model import ChatModel, Message
from lib.pipeline.errors import SmeltError
from lib.rag.answer import Citation, ground
from lib.rag.embed import Embedder
from lib.rag.passage import Hit, Passage
from lib.rag.search import Retriever


class Unsearchable(Exception):
    """The index cannot be searched, or nothing embedded, at the moment; no fault of the request's."""


class Grounding(NamedTuple):
    messages: list[Message]  # the conversation, with the passages in its last message
    hits: list[Hit]  # those passages, in the order of their numbers; none: nothing is close enough


class Documents:
    """An index, or the part of it that is served.

    Args:
        sources: nothing of any other source is ever given out; None serves all.
    """

    def __init__(self, retriever: Retriever, sources: Collection[str] | None = None) -> None:
        self._retriever = retriever
        self._sources = None if sources is None else frozenset(sources)

    def ground(
        self, model: ChatModel, messages: Sequence[Message], room: int, sources: Collection[str] | None
    ) -> Grounding:
        """Passages for the last message, which is the question, as many as fit.

        A question that finds nothing alone ("and in another region?") is looked up together with the one before it.

        Args:
            room: tokens that the prompt may have.
            sources: of these alone.

        Raises:
            Unsearchable: the index cannot be searched.
            SmeltError: the last message is not the user's; the conversation leaves no room for a passage.
        """
        *before, last = messages
        if last["role"] != "user":
            raise SmeltError("the last message must be the user's: it is the question that the documents are asked")
        asked = [message["content"] for message in messages if message["role"] == "user"]
        searches = [asked[-1], "\n".join(asked[-2:])] if len(asked) > 1 else asked
        hits = next(filter(None, (self._search(search, sources) for search in searches)), [])
        if not hits:
            return Grounding(list(messages), [])

        def message(content: str) -> list[Message]:
            return [*before, {"role": "user", "content": content}]

        grounded = ground(last["content"], hits, lambda prompt: len(model.encode(message(prompt))) <= room)
        if not grounded.hits:
            raise SmeltError(f"the conversation leaves no room for a passage in a context of {model.context} tokens")
        return Grounding(message(grounded.prompt), grounded.hits)

    def document(self, id: str) -> list[Passage]:
        """The passages of a document that is served, in its order; else none."""
        passages = self._retriever.document(id)
        return [passage for passage in passages if self._sources is None or passage.source in self._sources]

    @property
    def embedder(self) -> Embedder:
        """What turned the passages into vectors."""
        return self._retriever.embedder

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), dimension].

        Raises:
            Unsearchable: the embedder is an endpoint that does not answer.
        """
        try:
            return self.embedder.encode(texts)
        except SmeltError as error:
            raise Unsearchable(str(error)) from None

    def close(self) -> None:
        self._retriever.close()

    def _search(self, question: str, sources: Collection[str] | None) -> list[Hit]:
        try:
            return self._retriever.search(question, sources=self._allowed(sources))
        except SmeltError as error:  # a store that is down
            raise Unsearchable(str(error)) from None

    def _allowed(self, asked: Collection[str] | None) -> Collection[str] | None:
        if asked is None or self._sources is None:
            return asked if self._sources is None else self._sources
        return self._sources.intersection(asked)


def shown(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Retrieved passages with their numbers, as clients get them."""
    return [
        {"number": number, "score": round(float(hit.score), 4), **asdict(hit.passage)}
        for number, hit in enumerate(hits, start=1)
    ]


def annotations(citations: Sequence[Citation], hits: Sequence[Hit], page: str) -> list[dict[str, Any]]:
    """Citations in the form of OpenAI's, whose address opens the passage with its document.

    Args:
        page: address of the page.
    """
    found = []
    for number, start, end in citations:
        passage = hits[number - 1].passage
        address = f"{page}?{urlencode({'document': passage.document, 'passage': passage.id})}"
        title = passage.heading or passage.document
        link = {"start_index": start, "end_index": end, "title": title, "url": address}
        found.append({"type": "url_citation", "url_citation": link})
    return found
