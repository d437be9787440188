"""What a language model has to beat on held-out text: token frequencies alone, and two general compressors.

All are in bits per byte of the sample's UTF-8 text. The compressors see the texts joined with nothing between them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def unigram_bits_per_byte(token_counts: np.ndarray, documents: Sequence[Sequence[int]], text_bytes: int) -> float:
    """Bits per byte of a model that knows how often each token occurs, and nothing of its context.

    Counted are the bits of every token of every document and of one separator after each, as for a language model; the
    separators add no bytes.

    Args:
        token_counts: (vocab_size,), how often each token occurs in the training split; smoothed by adding one.
        documents: token ids of each held-out document with its separator.
        text_bytes: UTF-8 bytes of the documents' texts.
    """
    probabilities = (token_counts + 1) / (token_counts.sum() + len(token_counts))
    held_out_counts = np.bincount(np.concatenate([np.asarray(ids, np.int64) for ids in documents]),
                                  minlength=len(token_counts))  # fmt: skip
    return float(-(held_out_counts @ np.log2(probabilities)) / text_bytes)


def gzip_bits_per_byte(text: bytes) -> float:
    """Bits per byte of `text` compressed in one piece by zlib at level 9 (DEFLATE, as in gzip)."""
    return 8 * len(zlib.compress(text, 9)) / len(text)


def zstd_bits_per_byte(text: bytes) -> float:
    """Bits per byte of `text` compressed in one piece by Zstandard at level 19."""
    return 8 * len(pa.Codec("zstd", 19).compress(text, asbytes=True)) / len(text)


def measure_baselines(
    token_counts: np.ndarray, texts: Sequence[str], documents: Sequence[Sequence[int]]
) -> dict[str, float | int | None]:
    """All baselines on one sample, given as texts and as token ids with separators; null where there is no text."""
    text = "".join(texts).encode()
    values = {
        "unigram_bits_per_byte": unigram_bits_per_byte(token_counts, documents, len(text)) if text else None,
        "gzip_bits_per_byte": gzip_bits_per_byte(text) if text else None,
        "zstd_bits_per_byte": zstd_bits_per_byte(text) if text else None,
    }
    return {"bytes": len(text), "documents": len(texts), **values}
