"""Documents to token shards on disk, and back.

    data/tokens/<split>/00000.npy         token ids of many documents, each followed by the separator
    data/tokens/<split>/00000.starts.npy  where in that shard each document starts
    data/tokens/index.json                sizes, and which tokenizer made them

Ids are uint16 where the vocabulary allows it, and `np.load(path, mmap_mode="r")` maps a shard without reading it.
Memory is bounded by a batch of documents, whatever the size of the corpus or of a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lib.text.documents import Document
from lib.tokenizer.chat_template import END_OF_TEXT, encode_text

BATCH_CHARACTERS = 2**21  # enough to keep every thread of the tokenizer busy


@dataclass
class Encoded:
    """What one split became: its shards, and counts over all of its documents."""

    shards: list[dict[str, Any]] = field(default_factory=list)  # {"file", "tokens", "documents"} each
    token_counts: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # (vocab_size,), separators included
    source_tokens: Counter[str] = field(default_factory=Counter)  # separators included
    source_bytes: Counter[str] = field(default_factory=Counter)  # UTF-8 bytes of the texts

    @property
    def tokens(self) -> int:
        return sum(shard["tokens"] for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard["documents"] for shard in self.shards)


class _ShardWriter:
    """One shard, written as it comes: numpy pads the header so that the length can be filled in at the end."""

    def __init__(self, folder: Path, number: int, dtype: np.dtype) -> None:
        self.path, self._dtype = folder / f"{number:05d}.npy", dtype
        self.tokens, self.starts = 0, []
        self._stream = open(self.path, "wb")  # noqa: SIM115
        self._write_header()

    def _write_header(self) -> None:
        self._stream.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.tokens,),
        }
        np.lib.format.write_array_header_1_0(self._stream, header)

    def write(self, ids: np.ndarray) -> None:
        self.starts.append(self.tokens)
        self._stream.write(ids.tobytes())
        self.tokens += len(ids)

    def close(self) -> dict[str, Any]:
        self._write_header()
        self._stream.close()
        np.save(self.path.with_suffix(".starts.npy"), np.array(self.starts, np.int64))
        return {"file": self.path.name, "tokens": self.tokens, "documents": len(self.starts)}


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


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document], folder: Path, shard_tokens: int) -> Encoded:
    """Write the token shards of one split.

    A shard ends with the document that takes it to `shard_tokens` or beyond, so that no document is in two shards.
    Without documents there are no shards.
    """
    folder.mkdir(parents=True)
    vocab_size = tokenizer.get_vocab_size()
    dtype = token_dtype(vocab_size)
    done = Encoded(token_counts=np.zeros(vocab_size, np.int64))
    shard: _ShardWriter | None = None
    for batch in batches(documents):
        for document, tokens in zip(batch, encode_separated(tokenizer, [d.text for d in batch]), strict=True):
            ids = np.array(tokens, dtype)
            shard = shard or _ShardWriter(folder, len(done.shards), dtype)
            shard.write(ids)
            np.add.at(done.token_counts, ids, 1)
            done.source_tokens[document.source] += len(ids)
            done.source_bytes[document.source] += len(document.text.encode())
            if shard.tokens >= shard_tokens:
                done.shards.append(shard.close())
                shard = None
    if shard:
        done.shards.append(shard.close())
    return done


def write_index(folder: Path, tokenizer: Tokenizer, tokenizer_file: Path, splits: Mapping[str, Encoded]) -> None:
    """Write index.json, which says what the shards in `folder` are."""
    index = {
        "vocab_size": tokenizer.get_vocab_size(),
        "dtype": token_dtype(tokenizer.get_vocab_size()).name,
        "separator": tokenizer.token_to_id(END_OF_TEXT),
        "tokenizer": hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(),
        "splits": {
            name: {"tokens": split.tokens, "documents": split.documents, "shards": split.shards}
            for name, split in splits.items()
        },
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
