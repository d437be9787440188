"""Held-out tasks with passages from the index before the question, as `make chat` asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lib.evals.commands import Example
from lib.evals.language_model import LanguageModel
from lib.rag.answer import ground
from lib.rag.passage import Hit


class Question(NamedTuple):
    """A prompt with passages, and whether one of those is from the page that has the answer."""

    messages: list[dict[str, str]]
    found: bool


def with_passages(
    lm: LanguageModel,
    examples: Sequence[Example],
    hits: Sequence[Sequence[Hit]],
    prompt_tokens: int,
    answer_tokens: int,
) -> list[Question]:
    """Each example's question after as many of its `hits` as fit.

    Args:
        prompt_tokens: what a prompt may have; less where the model reads less, with room for `answer_tokens`.
    """
    room = min(prompt_tokens, lm.model.config.max_position_embeddings - answer_tokens)

    def fits(prompt: str) -> bool:
        ids = lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        return len(ids) <= room

    questions = []
    for example, retrieved in zip(examples, hits, strict=True):
        grounded = ground(example.prompt, retrieved, fits)
        prompt = grounded.prompt if grounded.hits else example.prompt
        found = any(hit.passage.document == example.document for hit in grounded.hits)
        questions.append(Question([*example.messages[:-1], {"role": "user", "content": prompt}], found))
    return questions
