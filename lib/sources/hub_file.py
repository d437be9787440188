"""A file of a hub, fetched from the front as far as it is read, and kept.

A source that is cut after 100 MiB fetches the first part of its first file and no more, and a killed run goes on at the
byte where it was. Parquet has its table of contents at the end; that end is fetched and kept by itself.

    <cache>/<owner>--<name>/<commit>/<path>            a whole file, its hash checked
                                    /<path>.partial    its beginning
                                    /<path>.tail       its end
                                    /<path>.etag       its size and hash, as the hub says
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from lib.pipeline.errors import SmeltError
from lib.sources.hub_client import Hub, write_whole

_CHUNK = 2**20
_FOOTER = 2**16  # bytes at the end of a parquet file that its reader asks for first
_REPORT_EVERY = 20.0  # seconds


class HubFile(io.RawIOBase):
    """A file of a hub that can be read and sought in; what was not read yet is fetched as far as needed, and kept."""

    def __init__(self, hub: Hub, path: str) -> None:
        self.hub, self.path = hub, path
        self._whole = hub.folder / path
        self._partial = self._whole.with_name(self._whole.name + ".partial")
        self._tail = self._whole.with_name(self._whole.name + ".tail")
        self._about = self._whole.with_name(self._whole.name + ".etag")
        self._position = 0
        self._response: Any = None  # the context manager of an answer that is being read
        self._chunks: Iterator[bytes] = iter(())
        self._reported = time.monotonic()
        self._fetched = 0
        self._started = time.monotonic()
        if self._whole.exists():
            self._kept = open(self._whole, "rb")  # noqa: SIM115 - closed in `close`
            self.size, self._have = self._whole.stat().st_size, self._whole.stat().st_size
        else:
            self._whole.parent.mkdir(parents=True, exist_ok=True)
            self._kept = open(self._partial, "a+b")  # noqa: SIM115
            self._have = self._partial.stat().st_size
            self.size, self._etag = self._identify()
            if path.endswith(".parquet"):
                self._fetch_tail()

    # -- io.RawIOBase

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        want = min(len(view), self.size - self._position)
        if want <= 0:
            return 0
        tail = self._tail_start()
        if self._position >= tail:
            with open(self._tail, "rb") as stream:
                stream.seek(self._position - tail)
                data = stream.read(want)
        else:
            if self._have < min(self._position + want, self.size):
                self._fetch(self._position + want)
            self._kept.seek(self._position)
            data = self._kept.read(want)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def complete(self) -> None:
        """Fetch what was not read, so that the file is kept whole and its hash is checked."""
        if self._have < self.size:
            self._fetch(self.size)

    def close(self) -> None:
        if not self.closed:
            self._hang_up()
            self._kept.close()
        super().close()

    # -- fetching

    def _identify(self) -> tuple[int, str]:
        """Size and hash of the file. What is kept of it belongs to another file if they changed, and is removed."""
        if not self._about.exists():
            write_whole(self._about, json.dumps(self.hub.attempt(self._ask, self.path)).encode())
            self._tail.unlink(missing_ok=True)
            self._kept.truncate(0)
            self._have = 0
        size, etag = json.loads(self._about.read_text())
        return size, etag

    def _ask(self) -> tuple[int, str]:
        with self.hub.stream(self.path, 0, 1) as response:
            if response.status_code == 416:  # no byte to give: it is empty
                return 0, ""
            self.hub.accept(response)
            answers = [*response.history, response]
            span = response.headers.get("Content-Range", "").rpartition("/")[2]
            # Of a file in large storage the first answer has the hash, and the one it leads to has the storage's own.
            names = ("X-Linked-ETag", "ETag")
            etag = next((answer.headers[name] for name in names for answer in answers if name in answer.headers), "")
            return int(span or response.headers["Content-Length"]), etag.removeprefix("W/").strip('"')

    def _tail_start(self) -> int:
        """From where on the file's end is kept by itself; the size where it is not, or not any more."""
        kept = self._have < self.size and self._tail.exists()
        return self.size - self._tail.stat().st_size if kept else self.size

    def _fetch_tail(self) -> None:
        """Fetch the end of a parquet file, with its whole footer, unless it is there."""
        have = self._tail.stat().st_size if self._tail.exists() else 0
        need = min(_FOOTER, self.size)
        while have < need:
            data = self.hub.attempt(lambda need=need: self._ask_tail(self.size - need), self.path)
            if not data:  # the hub gives whole files only
                return
            write_whole(self._tail, data)
            have = len(data)
            footer = int.from_bytes(data[-8:-4], "little") + 8  # the last bytes: the footer's length, and "PAR1"
            need = min(footer if data[-4:] == b"PAR1" else 0, self.size)

    def _ask_tail(self, start: int) -> bytes:
        with self.hub.stream(self.path, start, self.size) as response:
            self.hub.accept(response)
            return response.read() if response.status_code == 206 else b""

    def _fetch(self, until: int) -> None:
        """Append to the partial file until it has `until` bytes."""
        until = min(until, self._tail_start())
        self.hub.attempt(lambda: self._append(until), self.path, lambda: self._have)
        if self._have >= (tail := self._tail_start()):
            if tail < self.size:
                self._kept.write(self._tail.read_bytes()[self._have - tail :])
                self._have = self.size
            self._finish()

    def _append(self, until: int) -> None:
        try:
            while self._have < until:
                if not self._append_chunk():
                    self._call()
                    if not self._append_chunk():
                        raise httpx2.RemoteProtocolError(
                            f"the answer ended after {self._have:,} of {self.size:,} bytes"
                        )
            self._kept.flush()
        except BaseException:
            self._hang_up()
            self._kept.flush()
            raise

    def _call(self) -> None:
        self._hang_up()
        self._response = self.hub.stream(self.path, self._have)
        response = self._response.__enter__()
        self.hub.accept(response)
        if response.status_code != 206 and self._have:  # the hub gives whole files only: from the beginning
            self._kept.truncate(0)
            self._have = 0
        self._chunks = response.iter_raw()  # as they come: what waits for a whole chunk is lost with the connection

    def _append_chunk(self) -> bool:
        chunk = next(self._chunks, b"")[: self.size - self._have]
        self._kept.write(chunk)
        self._have += len(chunk)
        self._fetched += len(chunk)
        self._report()
        return bool(chunk)

    def _hang_up(self) -> None:
        if self._response is not None:
            self._response.__exit__(None, None, None)
        self._response, self._chunks = None, iter(())

    def _finish(self) -> None:
        """Check the whole file's hash and give it its name."""
        self._hang_up()
        self._kept.flush()
        if self._etag and not matches(self._partial, self._etag):
            for path in (self._partial, self._tail, self._about):
                path.unlink(missing_ok=True)
            raise SmeltError(
                f"{self.hub.repo}: {self.path} is damaged: its content is not what the hub's hash {self._etag} says. "
                f"It was removed; run the same command again to fetch it anew"
            )
        os.replace(self._partial, self._whole)
        for path in (self._tail, self._about):
            path.unlink(missing_ok=True)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            rate = self._fetched / 1e6 / (now - self._started)
            self.hub.log(f"{self.path}: {self._have / 1e6:,.0f} of {self.size / 1e6:,.0f} MB, {rate:.1f} MB/s")


def matches(path: Path, etag: str) -> bool:
    """Whether a file has the content that a hub's ETag says: sha256 in large storage, git's own sha1 elsewhere."""
    if len(etag) not in (40, 64):
        return True  # a mirror's own tag, which says nothing of the content
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as stream:
        while data := stream.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest() == etag
