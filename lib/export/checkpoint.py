"""Weights on disk, one tensor in memory at a time, without torch.

The safetensors package is not used here: it writes metadata of several keys in random order, so that equal inputs give
different bytes, and its numpy side reads no bfloat16. The format is a JSON header after its length, then the tensors:
https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from lib.pipeline.errors import SmeltError

Dtype = Literal["float32", "float16", "bfloat16"]
_CODES: dict[Dtype, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_LARGEST: dict[Dtype, float] = {
    "float32": float(np.finfo(np.float32).max),
    "float16": float(np.finfo(np.float16).max),
    "bfloat16": (2 - 2**-7) * 2.0**127,
}


class Checkpoint:
    """The tensors of one safetensors file, by name."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        self.path = path
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self._data = np.memmap(path, np.uint8, mode="r", offset=8 + length)

    @property
    def names(self) -> list[str]:
        """Sorted, so that what is written from them does not depend on how this file was written."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name]["shape"])

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor.

        Raises:
            SmeltError: it is not of a floating-point type that models are stored in.
        """
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        raw = self._data[begin:end]
        if entry["dtype"] == "BF16":
            values = dequantize(raw, GGMLQuantizationType.BF16)
        elif entry["dtype"] in ("F32", "F16"):
            values = raw.view(np.dtype("<f4" if entry["dtype"] == "F32" else "<f2"))
        else:
            raise SmeltError(
                f"{self.path}: tensor {name} is stored as {entry['dtype']}; export reads F32, F16 and BF16"
            )
        return values.astype(np.float32, copy=False).reshape(self.shape(name))


def encode(name: str, values: NDArray[np.float32], dtype: Dtype) -> NDArray:
    """`values` rounded to `dtype` (nearest, ties to even); the bytes of bfloat16 come as uint8.

    Raises:
        SmeltError: `dtype` cannot hold one of them.
    """
    if not np.abs(values).max() <= _LARGEST[dtype]:  # written so that NaN fails too
        raise SmeltError(
            f"tensor {name} has values that {dtype} cannot hold (NaN, infinite or above {_LARGEST[dtype]:g})"
        )
    if dtype == "bfloat16":
        return quantize(values, GGMLQuantizationType.BF16)
    return values.astype("<f4" if dtype == "float32" else "<f2", copy=False)


def write(source: Checkpoint, path: Path, dtype: Dtype, metadata: Mapping[str, str]) -> None:
    """Write `source` as a safetensors file of `dtype` with `metadata` in its header: equal inputs, equal bytes."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in source.names:
        shape = source.shape(name)
        size = int(np.prod(shape)) * _BYTES[dtype]
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in source.names:
            stream.write(encode(name, source.read(name), dtype).tobytes())
