"""Documents from pages of the web, which lie in the input folder as WARC: those of the crawl, and the user's own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from warcio.recordloader import ArcWarcRecord

from lib.params.sources import WebSource
from lib.sources import html, links, pages, warc
from lib.sources.records import Item
from lib.sources.time_limit import Crashed, TimeLimit
from lib.sources.warc import Answer
from lib.text.documents import Document

_BLOCK = 1 << 16
_ENCODINGS = {"gzip", "deflate", "identity"}  # others are Python packages of their own
_REASON = re.compile(rb"reason: ([a-z0-9_]+)\r\n")


def fetch(folder: Path, scratch: Path, source: WebSource, log: Callable[[str], None]) -> None:
    """Crawl what is not there yet. Where a crawl of these URLs is complete, the network is not touched."""
    from lib.sources import crawl  # 0.5 s, only where there is a web source

    if not crawl.is_complete(folder, source):
        crawl.crawl(folder, scratch, source, refresh=False, log=log)


def listed(source: WebSource) -> set[str]:
    """The URLs that the user listed, in the spelling of documents."""
    return {links.normalise(url) or url for url in (*source.urls, *source.sitemaps)}


def read(folder: Path, name: str, source: WebSource, log: Callable[[str], None]) -> Iterator[Item]:
    """The documents of source `name`, each with the reason why it is rejected, or None.

    Every URL that has a record comes once: its last one, unless that only says that nothing changed.
    """
    whole = folder.resolve()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    refused: dict[Path, str] = {}
    for path in files:
        if not path.resolve().is_relative_to(whole):
            refused[path] = "link_out_of_the_folder"
        elif not path.name.endswith((".warc", ".warc.gz")):
            refused[path] = "no_warc"
    survey = _Survey(path for path in files if path not in refused)
    refused |= dict.fromkeys(survey.broken, "broken_warc")

    with TimeLimit(html.extract, source.extract_seconds) as extract:
        for path in files:
            if path not in refused or path in survey.broken:
                for outcome in _outcomes(path):
                    if survey.places[outcome.url] == (path, outcome.number):
                        text, reason = _text(outcome, survey, source, extract)
                        place = Document(f"{name}/{outcome.url}", text, outcome.url, name, source.licence)
                        yield place, reason
            if path in refused:
                inside = path.relative_to(folder).as_posix()
                log(f"{source.input}/{inside}: {survey.broken.get(path, refused[path])}")
                yield Document(f"{name}/{inside}", "", f"{source.input}/{inside}", name, source.licence), refused[path]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class _Outcome(NamedTuple):
    """A record that says what a URL came to. Its body can be read until the next one is asked for."""

    number: int  # of the record in its file
    url: str
    kind: str
    answer: Answer | None  # its body left out
    reason: str | None
    record: ArcWarcRecord


def _outcomes(path: Path) -> Iterator[_Outcome]:
    """The records of pages of a file that was surveyed, up to where it is broken."""
    with contextlib.suppress(warc.Broken):
        yield from _all_outcomes(path, checksums=False)


def _all_outcomes(path: Path, checksums: bool = True) -> Iterator[_Outcome]:
    for number, (record, _) in enumerate(warc.records(path, checksums)):
        url = record.rec_headers.get_header("WARC-Target-URI") or ""
        answer, reason = None, None
        if not url.startswith(("http://", "https://")):
            continue
        if record.rec_type == "response" and record.http_headers:
            status = record.http_headers.get_statuscode()
            answer = Answer(int(status) if status.isdecimal() else 0, "", record.http_headers.headers, b"")
        elif record.rec_type == "response":
            reason = "broken_answer"
        elif record.rec_type in ("resource", "conversion"):
            answer = Answer(200, "", [("Content-Type", record.content_type or "")], b"")
        elif record.rec_type == "metadata":
            # Ours say why there is no page; other tools keep notes on pages in theirs.
            told = _REASON.fullmatch(record.raw_stream.read(_BLOCK))
            if told is None:
                continue
            reason = told[1].decode()
        elif record.rec_type == "revisit":
            reason = "revisit"
        else:
            continue
        yield _Outcome(number, url, record.rec_type, answer, reason, record)


class _Survey:
    """Which record of which file counts for each URL, and where redirects lead."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.places: dict[str, tuple[Path, int]] = {}
        self.broken: dict[Path, str] = {}
        self._redirects: dict[str, str | None] = {}
        for path in files:
            try:
                for outcome in _all_outcomes(path):
                    if outcome.kind != "revisit" or outcome.url not in self.places:
                        self._keep(outcome, path)
            except warc.Broken as error:
                self.broken[path] = f"broken ({error}); the records before that were read"

    def _keep(self, outcome: _Outcome, path: Path) -> None:
        self.places[outcome.url] = path, outcome.number
        self._redirects.pop(outcome.url, None)
        if outcome.answer is not None and outcome.answer.status in range(300, 400):
            location = outcome.answer.header("location")
            self._redirects[outcome.url] = links.normalise(location, outcome.url) if location else None

    def redirect(self, url: str) -> str:
        """The reason why a URL that redirects is rejected; the document, if there is one, is that of its target."""
        passed = set()
        at: str | None = url
        while at in self._redirects:
            if at in passed:
                return "redirect_loop"
            passed.add(at)
            at = self._redirects[at]
        return "redirected" if at is not None else "redirect_to_nowhere"


def _text(
    outcome: _Outcome, survey: _Survey, source: WebSource, extract: TimeLimit[bytes, str | None]
) -> tuple[str, str | None]:
    answer = outcome.answer
    if answer is None:
        return "", outcome.reason
    if answer.status in range(300, 400):
        return "", survey.redirect(outcome.url)
    if answer.status != 200:
        return "", f"http_{answer.status}"
    if urlsplit(outcome.url).path == "/robots.txt":
        return "", "not_a_page"
    if pages.kind(answer) is None:
        return "", "unsupported_type"
    if outcome.kind == "response" and (answer.header("content-encoding") or "identity").lower() not in _ENCODINGS:
        return "", "unsupported_encoding"
    body = _body(outcome.record, int(source.max_page_mib * 2**20))
    if body is None:
        return "", "too_large"
    try:
        return pages.text(answer._replace(body=body), extract)
    except TimeoutError:
        return "", "extraction_timed_out"
    except Crashed:
        return "", "extraction_crashed"


def _body(record: ArcWarcRecord, most: int) -> bytes | None:
    """The body, decompressed piece by piece; None when it is longer than `most`."""
    stream, parts, size = record.content_stream(), [], 0
    while part := stream.read(_BLOCK):
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
