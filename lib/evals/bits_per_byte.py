"""Bits per byte: how many bits a model needs for held-out text, comparable across tokenizers.

A document's bits are the negative log2 likelihood of its tokens, the first given the token that a document follows.
A document longer than the model's window is read in windows that overlap by half, and only what is new in a window is
scored, so that every token after the first window has at least half a window before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lib.evals.estimates import Estimate, ratio, weighted
from lib.evals.items import Item
from lib.evals.language_model import LanguageModel, Progress
from lib.text.documents import Document

_BATCH_TOKENS = 2048  # logits of 49k tokens then take 400 MB


class Window(NamedTuple):
    """Tokens [start, end) are read; the last `scored` of their successors (start, end] are scored."""

    start: int
    end: int
    scored: int


def windows(length: int, size: int) -> Iterator[Window]:
    """Cut the prediction of `length` tokens (a beginning token stands before them) into windows of `size` tokens."""
    start = done = 0
    while done < length:
        end = min(start + size, length)
        yield Window(start, end, end - done)
        start, done = start + math.ceil(size / 2), end


def _batches(parts: list[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
    """Windows of similar length together, at most _BATCH_TOKENS with padding."""
    batch: list[tuple[int, Window]] = []
    for document, window in sorted(parts, key=lambda part: part[1].start - part[1].end):
        longest = batch[0][1] if batch else window
        if batch and (len(batch) + 1) * (longest.end - longest.start) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append((document, window))
    if batch:
        yield batch


def document_bits(lm: LanguageModel, texts: Sequence[str], progress: Progress) -> list[float]:
    """Bits of each text under the model. The name of a special token inside a text is scored as plain characters."""
    import torch

    if not texts:
        return []
    encoded = lm.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rows = [torch.tensor([lm.begin, *ids]) for ids in encoded]
    parts = [(index, window) for index, row in enumerate(rows) for window in windows(len(row) - 1, lm.window)]
    batches = list(_batches(parts))
    bits = [0.0] * len(texts)
    for batch in progress(batches, len(batches), "batch"):
        # Padding comes after the text, where causal attention never looks: no mask is needed.
        pieces = [rows[index][window.start : window.end + 1] for index, window in batch]
        tokens_BT = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=lm.begin).to(lm.device)
        with torch.inference_mode():
            logits_BTV = lm.model(input_ids=tokens_BT[:, :-1], use_cache=False).logits.float()
            losses_BT = torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
            ).view(len(batch), -1)
        for (index, window), losses_T in zip(batch, losses_BT.cpu().double(), strict=True):
            read = window.end - window.start
            bits[index] += losses_T[read - window.scored : read].sum().item() / math.log(2)
    return bits


def bits_per_byte(documents: Sequence[Document], bits: Sequence[float]) -> tuple[dict[str, Any], list[Item]]:
    """Bits per UTF-8 byte, with standard errors over documents.

    Args:
        bits: of each document, see `document_bits`.

    Returns:
        `overall` and `sources` by name. As the sample holds a fixed number of bytes of each source, the overall value
        is that of a stratified sample. And each document's, as items of its source, weighted by bytes.
    """
    sizes = [len(document.text.encode()) for document in documents]
    estimates: dict[str, Estimate] = {}
    weights: dict[str, int] = {}
    for source in sorted({document.source for document in documents}):
        chosen = [index for index, document in enumerate(documents) if document.source == source]
        estimates[source] = ratio([bits[index] for index in chosen], [sizes[index] for index in chosen])
        weights[source] = sum(sizes[index] for index in chosen)
    metrics = {
        "overall": weighted(list(estimates.values()), list(weights.values())).as_metric(),
        "sources": {source: estimate.as_metric() for source, estimate in estimates.items()},
    }
    items = [
        Item(f"bits_per_byte/{document.source}", document.id, count / size, size)
        for document, count, size in zip(documents, bits, sizes, strict=True)
    ]
    return metrics, items
