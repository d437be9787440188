"""Retrieval measured: is the right document found, and do answers gain by passages, as `make chat` would ask?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from lib.evals.commands import Example
from lib.evals.estimates import mean
from lib.evals.items import Item
from lib.evals.language_model import LanguageModel
from lib.rag.answer import ground
from lib.rag.passage import Hit, Passage
from lib.rag.search import Retriever

DEPTH = 10  # passages looked at for each question
_CUTS = (1, 5, DEPTH)


class Question(NamedTuple):
    """A prompt with passages, and whether one of those is from the page that has the answer."""

    messages: list[dict[str, str]]
    found: bool


def look_up(retriever: Retriever, questions: Sequence[str], modes: Sequence[str], depth: int) -> dict[str, Any]:
    """What each mode finds for each question, `depth` passages at most, as plain values for `as_hits`."""

    def plain(question: str, mode: str) -> list[list[Any]]:
        return [[asdict(hit.passage), hit.score] for hit in retriever.search(question, depth, mode=mode)]

    return {mode: [plain(question, mode) for question in questions] for mode in modes}


def as_hits(found: Sequence[tuple[dict[str, Any], float]]) -> list[Hit]:
    """The hits of one question, from what `look_up` made of them."""
    return [Hit(Passage(**passage), score) for passage, score in found]


def score_retrieval(
    name: str, examples: Sequence[Example], hits: Sequence[Sequence[Hit]]
) -> tuple[dict[str, Any], list[Item]]:
    """How often the document of each question is among the first passages found for it.

    Returns:
        `questions`, and with standard errors `recall_at_1`, `_5` and `_10` (a passage of the document is among so many)
        and `mrr` (the mean of 1 / rank of the first such passage, 0 beyond the tenth; Voorhees 1999, TREC-8). And each
        question's, as items of `name`.
    """
    scores: dict[str, list[float]] = {**{f"recall_at_{cut}": [] for cut in _CUTS}, "mrr": []}
    for example, found in zip(examples, hits, strict=True):
        ranks = [at for at, hit in enumerate(found[:DEPTH], start=1) if hit.passage.document == example.document]
        for cut in _CUTS:
            scores[f"recall_at_{cut}"].append(float(bool(ranks) and ranks[0] <= cut))
        scores["mrr"].append(1 / ranks[0] if ranks else 0.0)
    items = [
        Item(f"{name}/{key}", example.id, value)
        for key, values in scores.items()
        for example, value in zip(examples, values, strict=True)
    ]
    return {"questions": len(examples)} | {key: mean(values).as_metric() for key, values in scores.items()}, items


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
