"""A conversation with a chat model, kept within its context, with or without retrieved passages."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from lib.completion.chat_model import ChatModel, Message
from lib.pipeline.errors import SmeltError
from lib.rag.answer import ground, only_retrieved
from lib.rag.passage import Hit


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    temperature: float


@dataclass
class Conversation:
    """Turns of user and assistant. What does not fit into the model's context is left out, and `note` is told.

    A third of the context, or `max_tokens` if that is less, is kept free for the answer.
    """

    model: ChatModel
    sampling: Sampling
    note: Callable[[str], None]
    history: list[Message] = field(default_factory=list)

    @property
    def _room(self) -> int:
        return self.model.context - min(self.sampling.max_tokens, self.model.context // 3)

    def _fits(self, *messages: Message) -> bool:
        return len(self.model.encode(messages)) <= self._room

    def ask(self, question: str) -> Generator[str, None, None]:
        """Stream the answer to `question`.

        Raises:
            SmeltError: the question alone does not fit.
        """
        return self._answer(question, question)

    def ask_about(self, question: str, hits: list[Hit]) -> tuple[list[Hit], Generator[str, None, None]]:
        """The hits that fit into the prompt, and the answer, which cites none but those.

        Raises:
            SmeltError: the question leaves no room for a passage.
        """
        grounded = ground(question, hits, lambda prompt: self._fits(_user(prompt)))
        if not grounded.hits:
            raise SmeltError(f"the question leaves no room for a passage in a context of {self.model.context} tokens")
        if grounded.shortened or len(grounded.hits) < len(hits):
            cut = ", the last one cut" if grounded.shortened else ""
            self.note(f"{len(grounded.hits)} of {len(hits)} passages fit into {self.model.context} tokens{cut}")
        return grounded.hits, only_retrieved(self._answer(question, grounded.prompt), len(grounded.hits))

    def _answer(self, question: str, prompt: str) -> Generator[str, None, None]:
        """Answer `prompt` after what fits of the history; remember `question` in its place."""
        if not self._fits(_user(prompt)):
            raise SmeltError(f"this message is too long: the model's context is {self.model.context} tokens")
        dropped = 0
        while not self._fits(*self.history, _user(prompt)):
            del self.history[:2]
            dropped += 1
        if dropped:
            self.note(f"forgot the oldest {'turn' if dropped == 1 else f'{dropped} turns'}: the context is full")
        return self._generate(question, self.model.encode([*self.history, _user(prompt)]))

    def _generate(self, question: str, ids: list[int]) -> Generator[str, None, None]:
        said: list[str] = []
        try:
            for piece in self.model.stream(ids, self.sampling.max_tokens, self.sampling.temperature):
                said.append(piece)
                yield piece
        finally:  # also of an answer that the user stopped
            self.history += [_user(question), {"role": "assistant", "content": "".join(said)}]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
