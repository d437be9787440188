"""One file as its readers see it: on disk, or unpacked from another file within bounds."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from lib.params.sources import Limits
from lib.sources import encodings

HEAD = 65_536  # bytes that tell the type of a file and its encoding
_MIB = 2**20
_STEP = 65_536


class Rejected(Exception):
    """A document cannot be read. Its reason is a word of the rejects file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def unique(name: str, taken: set[str]) -> str:
    """`name`, or `name~2`, ... if that is taken; it is taken afterwards."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    taken.add(free)
    return free


class Budget:
    """How many bytes may still be unpacked from one file of the folder."""

    def __init__(self, limits: Limits) -> None:
        self.document = limits.document_mib * _MIB
        self._left = limits.unpacked_mib * _MIB

    def spend(self, size: int) -> None:
        """
        Raises:
            Rejected: `unpacks_too_large`; nothing was spent.
        """
        if size > self._left:
            raise Rejected("unpacks_too_large")
        self._left -= size


@contextmanager
def _reasons() -> Iterator[None]:
    """The errors of decompressors as reasons."""
    try:
        yield
    except RuntimeError as error:  # zipfile's word for a member with a password
        raise Rejected("broken_archive" if isinstance(error, NotImplementedError) else "encrypted") from None
    except (EOFError, OSError, ValueError, zlib.error, zipfile.BadZipFile, pa.ArrowException):
        raise Rejected("broken_archive") from None


class _Unpacked(io.RawIOBase):
    """What a decompressor gives, counted."""

    def __init__(self, opener: Callable[[], BinaryIO], budget: Budget) -> None:
        self._budget = budget
        with _reasons():
            self._stream = opener()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _reasons():
            data = self._stream.read(len(buffer))
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


class Content:
    """The bytes of one file, which can be opened as often as wanted.

    Attributes:
        name: its own name, without the folders or archives that it lies in.
        budget: what may still be unpacked from it.
    """

    def __init__(self, name: str, budget: Budget, opener: Callable[[], BinaryIO], on_disk: bool = False) -> None:
        self.name, self.budget, self._opener, self._seekable = name, budget, opener, on_disk

    @classmethod
    def of_file(cls, path: Path, limits: Limits) -> Content:
        return cls(path.name, Budget(limits), lambda: path.open("rb"), on_disk=True)

    def of_bytes(self, name: str, data: bytes) -> Content:
        """A part of this content that is in memory already."""
        return Content(name, self.budget, lambda: io.BytesIO(data), on_disk=True)

    def unpacked(self, name: str, opener: Callable[[], BinaryIO]) -> Content:
        """A part of this content, or all of it, that `opener` unpacks as a stream."""
        return Content(name, self.budget, lambda: io.BufferedReader(_Unpacked(opener, self.budget), _STEP))

    def open(self) -> BinaryIO:
        """Its bytes as a stream from the beginning."""
        return self._opener()

    def head(self) -> bytes:
        with self.open() as stream:
            return stream.read(HEAD)

    def read(self) -> bytes:
        """All its bytes.

        Raises:
            Rejected: `too_large`.
        """
        with self.open() as stream:
            data = stream.read(self.budget.document + 1)
        if len(data) > self.budget.document:
            raise Rejected("too_large")
        return data

    def open_seekable(self) -> BinaryIO:
        """The same for readers that jump about: the file itself, or its bytes in memory.

        Raises:
            Rejected: `too_large` to be kept in memory.
        """
        return self.open() if self._seekable else io.BytesIO(self.read())

    def text(self) -> str:
        """All its text, its mojibake repaired.

        Raises:
            Rejected: it is `too_large`, or `unknown_file_type`: no text.
        """
        data = self.read()
        codec = encodings.detect(data)
        if codec is None:
            raise Rejected("unknown_file_type")
        return encodings.repair(encodings.decode(data, codec))

    def lines(self) -> Iterator[str | None]:
        """Its lines of text one by one, without their ends; None in place of one that is too large.

        The encoding is that of its beginning; a line that does not have it is taken for UTF-8 or Windows-1252.
        """
        codec = encodings.detect(self.head(), complete=False)
        if codec is not None and codec.startswith(("utf-16", "utf-32")):
            yield from self._wide_lines(codec)
            return
        limit = self.budget.document
        with self.open() as stream:
            while line := stream.readline(limit + 2):  # with room for the line's end
                if len(line.rstrip(b"\r\n")) <= limit:
                    yield encodings.repair(encodings.decode(line, codec).rstrip("\n"))
                else:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(_STEP)
                    yield None

    def _wide_lines(self, codec: str) -> Iterator[str | None]:
        limit = self.budget.document // 2
        with self.open() as stream, io.TextIOWrapper(stream, codec, "replace", newline=None) as text:
            while line := text.readline(limit + 1):
                if len(line.rstrip("\n")) <= limit:
                    yield encodings.repair(line.rstrip("\n"))
                else:
                    while line and not line.endswith("\n"):
                        line = text.readline(_STEP)
                    yield None


def gunzip(content: Content) -> Content:
    return content.unpacked(_stem(content.name, ".gz"), lambda: gzip.GzipFile(fileobj=content.open()))


def unzstd(content: Content) -> Content:
    return content.unpacked(_stem(content.name, ".zst"), lambda: pa.CompressedInputStream(content.open(), "zstd"))


def _stem(name: str, suffix: str) -> str:
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name
