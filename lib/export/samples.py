"""Held-out text and prompts in the tokens of one model: what its exports are measured on, and calibrated with."""

from __future__ import annotations

import json
from pathlib import Path

from lib.evals.held_out import sample_held_out
from lib.export.config import read_config
from lib.export.parity import Sample
from lib.params.results import Parity
from lib.tokenizer.rendering import ChatRenderer
from lib.tokenizer.template import Unrenderable

_LONGEST_WINDOW = 1024  # tokens, as in the stage `evaluate`: memory of attention and logits stays bounded


def context(model: Path) -> int:
    """Tokens that the model can read."""
    return read_config(model)["max_position_embeddings"]


def find_window(model: Path) -> int:
    """Tokens that are read at once of the text that a model is measured on."""
    return min(context(model), _LONGEST_WINDOW)


def take(text: Path, conversations: Path, model: Path, settings: Parity) -> Sample:
    """Held-out documents of the folder `text`, and prompts of the `conversations`, in their order.

    A prompt is left out whose answer would not fit into the window.
    """
    renderer, window = ChatRenderer.from_folder(model), find_window(model)
    documents = sample_held_out(text, settings.held_out_bytes) if settings.held_out_bytes else []
    prompts: list[list[int]] = []
    with conversations.open(encoding="utf-8") as lines:
        for line in lines:
            if len(prompts) == settings.prompts:
                break
            try:
                prompt = renderer.prompt(json.loads(line)["messages"][:1])
            except Unrenderable:
                continue
            if len(prompt) + settings.answer_tokens <= window:
                prompts.append(prompt)
    return Sample(
        [renderer.text(document.text) for document in documents],
        [len(document.text.encode()) for document in documents],
        prompts,
        settings.answer_tokens,
        window,
    )


def calibration(text: Path, model: Path, bytes_per_source: int) -> list[list[int]]:
    """Rows of at most a window of tokens of the documents in `text`; none for 0 bytes."""
    if not bytes_per_source:
        return []
    renderer, window = ChatRenderer.from_folder(model), find_window(model)
    documents = [renderer.text(document.text) for document in sample_held_out(text, bytes_per_source)]
    return [ids[start : start + window] for ids in documents for start in range(0, len(ids), window)]
