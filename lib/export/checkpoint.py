"""Weights on disk, one tensor in memory at a time, without torch.

The safetensors package is not used here: it writes metadata of several keys in random order, so that equal inputs give
different bytes, and its numpy side reads no bfloat16. The format is a JSON header after its length, then the tensors:
https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
    """The tensors of a model's safetensors files, by name: one file, or the shards of one.

    Raises:
        SmeltError: no file is given, or one is not whole, or two have a tensor of the same name.
    """

    def __init__(self, *paths: Path) -> None:
        self._entries: dict[str, tuple[Path, dict[str, Any]]] = {}
        self._data: dict[Path, NDArray[np.uint8]] = {}
        for path in paths:
            self._open(path)

    @classmethod
    def of_model(cls, folder: Path) -> Checkpoint:
        """The weights of the Hugging Face directory `folder`.

        Raises:
            SmeltError: as above, or there are none.
        """
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise SmeltError(
                f"{folder} is a model directory without weights: it has no .safetensors file. Run `dvc repro prefer`, "
                f"or `make pull` where others made it"
            )
        return cls(*files)

    def _open(self, path: Path) -> None:
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(min(length, path.stat().st_size)))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise SmeltError(f"{path} is not a whole safetensors file ({error}); make or download it again") from None
        if path.stat().st_size != end:
            raise SmeltError(
                f"{path} is not a whole safetensors file: it has {path.stat().st_size:,} bytes of {end:,}; make or "
                f"download it again"
            )
        if twice := sorted(entries.keys() & self._entries.keys()):
            raise SmeltError(
                f"{path} and {self._entries[twice[0]][0]} both have a tensor {twice[0]}; remove the stray one"
            )
        self._entries |= {name: (path, entry) for name, entry in entries.items()}
        self._data[path] = np.memmap(path, np.uint8, mode="r", offset=8 + length)

    @property
    def names(self) -> list[str]:
        """Sorted, so that what is written from them does not depend on how this file was written."""
        return sorted(self._entries)

    def where(self, name: str) -> Path:
        """The file that has the tensor."""
        return self._entries[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name][1]["shape"])

    def code(self, name: str) -> str:
        """safetensors' name of the type that it is stored in."""
        return self._entries[name][1]["dtype"]

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor."""
        path, entry = self._entries[name]
        begin, end = entry["data_offsets"]
        return self._data[path][begin:end]

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor.

        Raises:
            SmeltError: it is not of a floating-point type that models are stored in.
        """
        code, raw = self.code(name), self.raw(name)
        if code == "BF16":
            values = dequantize(raw, GGMLQuantizationType.BF16)
        elif code in ("F32", "F16"):
            values = raw.view(np.dtype("<f4" if code == "F32" else "<f2"))
        else:
            raise SmeltError(f"{self.where(name)}: tensor {name} is stored as {code}; export reads F32, F16 and BF16")
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
    sizes = {name: math.prod(source.shape(name)) * _BYTES[dtype] for name in source.names}
    with path.open("wb") as stream:
        _write_header(
            stream, {name: (_CODES[dtype], source.shape(name), sizes[name]) for name in source.names}, metadata
        )
        for name in source.names:
            stream.write(encode(name, source.read(name), dtype).tobytes())


def relabel(source: Checkpoint, names: Sequence[str], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors of `source` as they are, whatever their type, with `metadata` in place of theirs."""
    tensors = {name: (source.code(name), source.shape(name), source.raw(name).size) for name in names}
    with path.open("wb") as stream:
        _write_header(stream, tensors, metadata)
        for name in names:
            stream.write(source.raw(name).tobytes())


def _write_header(
    stream: BinaryIO, tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> None:
    """The length and the JSON of a file with `tensors`: safetensors' type, shape and bytes by name, in file order."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, (code, shape, size) in tensors.items():
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    stream.write(len(text).to_bytes(8, "little") + text)
