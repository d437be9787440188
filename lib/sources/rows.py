"""Rows of a table or of records, one at a time from a stream: parquet, JSON lines, a JSON array, csv and tsv.

Memory is bounded by a batch of rows of a parquet file, however large its row groups, and by one record elsewhere. What
cannot be read stays in the stream as a record with its reason.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.sources import records
from lib.sources.records import Record

_KINDS = {
    **dict.fromkeys(("json", "jsonl", "ndjson"), "json"),
    **{extension: extension for extension in ("csv", "tsv", "parquet")},
}
_COMPRESSIONS = ("gz", "zst", "bz2", "xz")
_NOT_JSON = re.compile(r"timestamp|date|time|duration|decimal|binary|map<|interval")
_BETWEEN = re.compile(r"[ \t\r\n,]*")  # the elements of a JSON array
_BATCH = 1000
_CHUNK = 2**20  # bytes of a parquet column, characters of a JSON array


def kind(name: str) -> str | None:
    """How a file of this name is read: "parquet", "json", "csv" or "tsv", or None where it is not."""
    parts = name.lower().rpartition("/")[2].split(".")
    if parts[-1] in _COMPRESSIONS:
        parts.pop()
        return None if parts[-1] == "parquet" else _KINDS.get(parts[-1])
    return _KINDS.get(parts[-1]) if len(parts) > 1 else None


def read(stream: IO[bytes], name: str, columns: Collection[str] | None) -> Iterator[Record]:
    """The rows of the file `name`, numbered from 1, as records whose values are dictionaries.

    Args:
        stream: the file's bytes; seekable if it is parquet.
        columns: read only these where that saves work; None for all.

    Raises:
        KeyError: with the list of columns, where the file has a schema that lacks some of `columns`.
        ValueError: the file is damaged.
    """
    try:
        if kind(name) == "parquet":
            yield from _parquet(stream, columns)
        elif kind(name) == "json":
            yield from _json(_decompress(stream, name))
        else:
            yield from _csv(_decompress(stream, name), "\t" if kind(name) == "tsv" else ",", columns)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        if error.errno is not None:  # of the disk, and not of a reader that does not understand what it reads
            raise
        raise ValueError(str(error)) from None


def _parquet(stream: IO[bytes], columns: Collection[str] | None) -> Iterator[Record]:
    with pq.ParquetFile(pa.PythonFile(stream, mode="r"), pre_buffer=False, buffer_size=_CHUNK) as file:
        names = file.schema_arrow.names
        _require(columns, names)
        # Dates, decimals and bytes are no JSON, which is what records are kept as.
        odd = [field.name for field in file.schema_arrow if _NOT_JSON.search(str(field.type))]
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=None if columns is None else sorted(columns)):
            for row in batch.to_pylist():
                number += 1
                yield Record(number, "", row | {name: _plain(row[name]) for name in odd if name in row})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _require(columns: Collection[str] | None, names: list[str]) -> None:
    if columns is not None and set(columns) - set(names):
        raise KeyError(names)


class _Lent(io.RawIOBase):
    """A stream that its readers may close, as they do when they are gone, while its owner goes on with it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)


def _decompress(stream: IO[bytes], name: str) -> IO[bytes]:
    stream = io.BufferedReader(_Lent(stream))
    extension = name.lower().rpartition(".")[2]
    if extension == "zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))
    openers = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    if extension in openers:
        return io.BufferedReader(openers[extension](stream))
    return stream


def _json(stream: IO[bytes]) -> Iterator[Record]:
    """JSON lines, or one array of records, which many files called .json are."""
    if stream.peek(3)[:3] == codecs.BOM_UTF8:
        stream.read(3)
    if stream.peek(64).lstrip()[:1] == b"[":
        yield from _json_array(stream)
        return
    for number, line in enumerate(stream, start=1):
        try:
            found = records.read_json_lines(line.decode())
        except UnicodeDecodeError:
            yield Record(number, "", line.decode(errors="replace"), "not_utf8")
            continue
        yield from (record._replace(number=number) for record in found)


def _json_array(stream: IO[bytes]) -> Iterator[Record]:
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace")
    decoder, number, ended = json.JSONDecoder(), 0, False
    buffer = text.read(_CHUNK)
    place = buffer.index("[") + 1
    while True:
        place = _BETWEEN.match(buffer, place).end()
        if buffer.startswith("]", place):
            return
        # A number at the end of the buffer may go on in the next chunk, so the end of a value is only known with more.
        with suppress(ValueError):
            value, end = decoder.raw_decode(buffer, place)
            if end < len(buffer):
                escaped = buffer.find("\\u", place, end) >= 0  # only an escape can spell half a pair
                place, number = end, number + 1
                whole = not escaped or records.readable(value)
                yield Record(number, "", value) if whole else Record(number, "", "", "broken_unicode")
                continue
        if ended:
            raise ValueError(f"the JSON array breaks off or is broken after {number:,} records")
        rest = buffer[place:]
        more = text.read(max(_CHUNK, len(rest)))  # doubling: a record of any length is scanned a few times only
        buffer, place, ended = rest + more, 0, not more


def _csv(stream: IO[bytes], separator: str, columns: Collection[str] | None) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)  # the default refuses a text of 128 KiB
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.DictReader(text, delimiter=separator, strict=True)
    _require(columns, list(reader.fieldnames or []))
    number = 0
    while True:
        number += 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Record(number, "", str(error), "broken_csv")
            continue
        if row is None:
            return
        if None in row or None in row.values():
            yield Record(number, "", json.dumps(row, ensure_ascii=False, default=str), "wrong_number_of_fields")
            continue
        yield Record(number, "", row)
