"""Pages as they came, in the archive format of the web: WARC (ISO 28500), one gzip member per record.

What a URL came to is one record of it: `response` for an answer (its body decompressed, as Common Crawl keeps it, and
left out where it is no page), `metadata` with `reason:` where there was none, `metadata` with `outlink:` and `sitemap:`
for the contents of a sitemap, and, only while a crawl is under way, `revisit` where the server said that a page is as
it was.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParserException
from warcio.warcwriter import WARCWriter

_BLOCK = 1 << 16
# What a stored body no longer has; the length is written anew.
_TRANSPORT = {"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"}


class Answer(NamedTuple):
    """What a server said: the body decompressed, empty where it was not wanted."""

    status: int
    phrase: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Broken(Exception):
    """The file is no WARC, or ends within a record."""


class Entry(NamedTuple):
    """Where the record of a URL lies, and what it says."""

    file: Path
    offset: int
    length: int
    url: str
    kind: str  # type of the record
    status: int | None = None
    digest: str | None = None
    etag: str | None = None
    modified: str | None = None
    location: str | None = None
    reason: str | None = None
    sitemaps: tuple[str, ...] = ()
    outlinks: tuple[str, ...] = ()

    @property
    def outcome(self) -> tuple[Any, ...]:
        """Equal for two records that make the same document or reject."""
        return self.kind, self.status, self.digest, self.location, self.reason


# What warcio raises over damaged files; the last two where a header that it counts on is missing.
_DAMAGE = (ArchiveLoadFailed, StatusAndHeadersParserException, zlib.error, ValueError, AttributeError, TypeError)

# ----------------------------------------------------------------------------------------------------------------------
# Reading


def records(path: Path, checksums: bool = True) -> Iterator[tuple[ArcWarcRecord, ArchiveIterator]]:
    """Every record of a file, with the iterator, which knows its place once the record is read.

    `checksums`: look at those of gzip too, which takes a second reading of the file, after the last record.

    Raises:
        Broken: it is no WARC, or ends within a record, or its checksums do not fit; the records before that were given.
    """
    with path.open("rb") as stream:
        iterator = ArchiveIterator(stream)
        try:
            for record in iterator:
                yield record, iterator
                while record.raw_stream.read(_BLOCK):
                    pass
                if getattr(record.raw_stream, "limit", 0) > 0:
                    raise Broken("ends within a record")
        except _DAMAGE as error:
            raise Broken((str(error).strip() or type(error).__name__).splitlines()[0]) from None
        if iterator.offset < path.stat().st_size:
            raise Broken("ends within a record")
    if checksums and path.name.endswith(".gz"):
        _check(path)


def _check(path: Path) -> None:
    """Read a gzip file to its end for the sake of its checksums, at which warcio does not look.

    Raises:
        Broken: one does not fit, or something in it is no gzip member.
    """
    try:
        with gzip.open(path) as stream:
            while stream.read(_BLOCK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise Broken((str(error) or type(error).__name__).splitlines()[0]) from None


def entries(path: Path) -> Iterator[Entry]:
    """What each record of a file that this module wrote says, in order; the `warcinfo` is left out.

    Raises:
        Broken: see `records`.
    """
    for record, iterator in records(path):
        url = record.rec_headers.get_header("WARC-Target-URI")
        if url is None:
            continue
        fields: dict[str, Any] = {"kind": record.rec_type}
        if record.http_headers:
            header = record.http_headers.get_header
            fields |= {
                "status": int(record.http_headers.get_statuscode()),
                "digest": record.rec_headers.get_header("WARC-Payload-Digest"),
                "etag": header("ETag"),
                "modified": header("Last-Modified"),
                "location": header("Location"),
            }
        elif record.rec_type == "metadata":
            told = [line.partition(": ") for line in record.raw_stream.read().decode().splitlines()]
            fields["reason"] = next((value for name, _, value in told if name == "reason"), None)
            fields["sitemaps"] = tuple(value for name, _, value in told if name == "sitemap")
            fields["outlinks"] = tuple(value for name, _, value in told if name == "outlink")
        yield Entry(path, iterator.get_record_offset(), iterator.get_record_length(), url, **fields)


def body(entry: Entry) -> bytes:
    """The body of a stored answer."""
    with entry.file.open("rb") as stream:
        stream.seek(entry.offset)
        return next(iter(ArchiveIterator(stream))).content_stream().read()


def info(path: Path) -> dict[str, str]:
    """The fields of the record at the head of a file, empty where there is none."""
    try:
        for record, _ in records(path):
            if record.rec_type != "warcinfo":
                break
            lines = record.raw_stream.read().decode(errors="replace").splitlines()
            return {name: value for name, _, value in (line.partition(": ") for line in lines)}
    except (Broken, FileNotFoundError):
        pass
    return {}


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def _member(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(WARCWriter(buffer, gzip=True))
    return buffer.getvalue()


def _info(fields: dict[str, str]) -> bytes:
    return _member(lambda writer: writer.write_record(writer.create_warcinfo_record(None, fields)))


def _whole(path: Path) -> int:
    """Where the last whole record of a file ends, in bytes."""
    end = position = 0
    inflate = zlib.decompressobj(wbits=31)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            position += len(block)
            while block:
                try:
                    inflate.decompress(block)
                except zlib.error:  # a crash of the machine may leave a block of zeros
                    return end
                block = inflate.unused_data
                if inflate.eof:
                    end = position - len(block)
                    inflate = zlib.decompressobj(wbits=31)
    return end


class Journal:
    """The records of a crawl under way. A kill leaves at most a torn last record, which is cut off here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.truncate(path, _whole(path))
            self.found = {entry.url: entry for entry in entries(path)}
        self._stream: BinaryIO = path.open("ab")

    def _append(
        self, url: str, kind: str, block: bytes | None, headers: StatusAndHeaders | None, **fields: Any
    ) -> Entry:
        digest = None

        def write(writer: WARCWriter) -> None:
            nonlocal digest
            stream, length = (None, None) if block is None else (io.BytesIO(block), len(block))
            record = writer.create_warc_record(url, kind, payload=stream, length=length, http_headers=headers)
            digest = record.rec_headers.get_header("WARC-Payload-Digest") if headers else None
            writer.write_record(record)

        data = _member(write)
        offset = self._stream.tell()
        self._stream.write(data)
        self._stream.flush()
        entry = Entry(self._path, offset, len(data), url, kind, digest=digest, **fields)
        self.found[url] = entry
        return entry

    def answer(self, url: str, answer: Answer) -> Entry:
        """Keep an answer."""
        kept = [(name, value) for name, value in answer.headers if name.lower() not in _TRANSPORT]
        headers = StatusAndHeaders(
            f"{answer.status} {answer.phrase}", [*kept, ("Content-Length", str(len(answer.body)))], protocol="HTTP/1.1"
        )
        return self._append(
            url, "response", answer.body, headers, status=answer.status, etag=answer.header("etag"),
            modified=answer.header("last-modified"), location=answer.header("location"),
        )  # fmt: skip

    def unchanged(self, url: str) -> Entry:
        """Keep that the server said that a page is as it was."""
        return self._append(url, "revisit", None, None)

    def failure(self, url: str, reason: str) -> Entry:
        """Keep why there is no answer."""
        return self._append(url, "metadata", f"reason: {reason}\r\n".encode(), None, reason=reason)

    def sitemap(self, url: str, sitemaps: Iterable[str], outlinks: Iterable[str]) -> Entry:
        """Keep what a sitemap lists."""
        lines = [f"sitemap: {found}\r\n" for found in sitemaps] + [f"outlink: {found}\r\n" for found in outlinks]
        block = "".join(lines).encode()
        return self._append(url, "metadata", block, None, sitemaps=tuple(sitemaps), outlinks=tuple(outlinks))

    def close(self) -> None:
        self._stream.close()


def write(path: Path, fields: dict[str, str], chosen: Iterable[Entry]) -> None:
    """Write a file of these records, copied byte for byte from where they lie, under the head `fields`."""
    aside = path.with_name(f".{path.name}.partial")
    source: BinaryIO | None = None
    try:
        with aside.open("wb") as target:
            target.write(_info(fields))
            for entry in chosen:
                if source is None or source.name != str(entry.file):
                    if source is not None:
                        source.close()
                    source = entry.file.open("rb")
                source.seek(entry.offset)
                target.write(source.read(entry.length))
            target.flush()
            os.fsync(target.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        if source is not None:
            source.close()
