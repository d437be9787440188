"""Documents to token ids: in packed shards on disk (see lib/tokenizer/shards.py), described by data/tokens/index.json.

Ids are uint16 where the vocabulary allows it. Memory is bounded by a batch of documents and one shard's packing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lib.text.documents import Document
from lib.tokenizer.chat_template import END_OF_TEXT, encode_text
from lib.tokenizer.shards import SplitWriter

BATCH_CHARACTERS = 2**21  # enough to keep every thread of the tokenizer busy


@dataclass
class Encoded:
    """What one split became: its shards, and counts over all of its documents."""

    context_length: int
    shards: list[dict[str, Any]]  # {"file", "tokens", "documents", "rows"} each
    pieces: int  # in all rows
    labels: int  # positions of all rows that carry loss
    token_counts: np.ndarray  # (vocab_size,), separators included
    source_tokens: Counter[str]  # separators included
    source_bytes: Counter[str]  # UTF-8 bytes of the texts

    @property
    def tokens(self) -> int:
        return sum(shard["tokens"] for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard["documents"] for shard in self.shards)

    @property
    def rows(self) -> int:
        return sum(shard["rows"] for shard in self.shards)

    def packing(self) -> dict[str, float | int | None]:
        """How the documents fill the rows.

        Returns:
            rows: how many there are.
            pieces_per_document: 1 where no document is longer than a row.
            padding_share, loss_share: of all positions, those without a token, and those with loss.
            lost_share: of all tokens, separators included, those that no position is to predict.
        """
        if not self.rows:
            return {"rows": 0} | dict.fromkeys(("pieces_per_document", "padding_share", "loss_share", "lost_share"))
        positions = self.rows * self.context_length
        return {
            "rows": self.rows,
            "pieces_per_document": round(self.pieces / self.documents, 4),
            "padding_share": round(1 - self.tokens / positions, 6),
            "loss_share": round(self.labels / positions, 6),
            "lost_share": round(1 - self.labels / self.tokens, 6),
        }


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Cut a stream of documents into lists of about BATCH_CHARACTERS characters."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def encode_separated(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, and the separator after them."""
    separator = tokenizer.token_to_id(END_OF_TEXT)
    return [[*ids, separator] for ids in encode_text(tokenizer, texts)]


def measure_bytes_per_token(tokenizer: Tokenizer, documents: Iterable[Document]) -> float:
    """UTF-8 bytes per token over all `documents`, without separators."""
    tokens = text_bytes = 0
    for batch in batches(documents):
        texts = [document.text for document in batch]
        tokens += sum(map(len, encode_text(tokenizer, texts)))
        text_bytes += sum(len(text.encode()) for text in texts)
    return text_bytes / tokens


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest little-endian integer type that holds every token id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def encode_documents(
    tokenizer: Tokenizer, documents: Iterable[Document], folder: Path, shard_tokens: int, context_length: int
) -> Encoded:
    """Write the token shards of one split, and the rows of `context_length` that its documents are packed into."""
    folder.mkdir(parents=True)
    vocab_size = tokenizer.get_vocab_size()
    dtype = token_dtype(vocab_size)
    split = SplitWriter(folder, dtype, shard_tokens, context_length)
    token_counts = np.zeros(vocab_size, np.int64)
    source_tokens: Counter[str] = Counter()
    source_bytes: Counter[str] = Counter()
    for batch in batches(documents):
        for document, tokens in zip(batch, encode_separated(tokenizer, [d.text for d in batch]), strict=True):
            ids = np.array(tokens, dtype)
            split.write(ids)
            np.add.at(token_counts, ids, 1)
            source_tokens[document.source] += len(ids)
            source_bytes[document.source] += len(document.text.encode())
    split.close()
    return Encoded(context_length, split.shards, split.pieces, split.labels, token_counts, source_tokens, source_bytes)


def write_index(folder: Path, tokenizer: Tokenizer, tokenizer_file: Path, splits: Mapping[str, Encoded]) -> None:
    """Write index.json, which says what the shards in `folder` are."""
    (context_length,) = {split.context_length for split in splits.values()}
    index = {
        "vocab_size": tokenizer.get_vocab_size(),
        "dtype": token_dtype(tokenizer.get_vocab_size()).name,
        "separator": tokenizer.token_to_id(END_OF_TEXT),
        "tokenizer": hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(),
        "context_length": context_length,
        "splits": {
            name: {"tokens": split.tokens, "documents": split.documents, "rows": split.rows, "shards": split.shards}
            for name, split in splits.items()
        },
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
