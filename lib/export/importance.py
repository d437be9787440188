"""Which columns of a weight matter: the importance matrix that llama.cpp's quantisation takes.

A column's importance is the mean square of what it is multiplied with, over calibration text, as in llama.cpp's own
program for it (https://github.com/ggml-org/llama.cpp/tree/master/tools/imatrix). Rounding then errs less where more
depends on it. The weights of the blocks alone get one, as there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from lib.export.llama import Reader

Importance = Mapping[str, NDArray[np.float32]]  # by llama.cpp's name of the weight: (width,)


def measure(path: Path, rows: Sequence[Sequence[int]], threads: int) -> Importance:
    """The importance of the columns of the GGUF file's weights over `rows` of tokens; empty for no rows."""
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}

    def watch(name: str, read: NDArray[np.float32]) -> None:
        if name.startswith("blk."):
            sums[name] = sums.get(name, 0.0) + np.square(read, dtype=np.float64).sum(axis=0)
            counts[name] = counts.get(name, 0) + len(read)

    if rows:
        with Reader(path, max(map(len, rows)), threads, watch=watch) as reader:
            for row in rows:
                reader.clear()
                reader.read(row, every=True)  # else the last block leaves out what no logits depend on
    return {name: (total / counts[name]).astype(np.float32) for name, total in sorted(sums.items())}


def to_llama(importance: Importance) -> ctypes.Array[llama_cpp.llama_model_imatrix_data]:
    """As `llama_model_quantize` takes it: an array that ends with an entry without a name.

    It points into the arrays of `importance`, which must outlive it.
    """
    entries = [
        llama_cpp.llama_model_imatrix_data(
            name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size
        )
        for name, values in importance.items()
    ]
    entries.append(llama_cpp.llama_model_imatrix_data(None, None, 0))
    return (llama_cpp.llama_model_imatrix_data * len(entries))(*entries)


def to_keys(importance: Importance, rows: int) -> ctypes.Array[llama_cpp.llama_model_kv_override]:
    """What llama.cpp's own program writes into a file of the matrix that it was quantised by, for `rows` of text."""
    keys = (llama_cpp.llama_model_kv_override * 4)()  # the last has no key
    for key, (name, value) in zip(
        keys, (("dataset", b"data/mix/val"), ("entries_count", len(importance)), ("chunks_count", rows)), strict=False
    ):
        key.key = f"quantize.imatrix.{name}".encode()
        if isinstance(value, bytes):
            key.tag, key.value.val_str = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, value
        else:
            key.tag, key.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
    return keys
