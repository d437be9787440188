"""What a file of a folder holds: itself, the members of archives, the messages of mailboxes and their attachments.

A part is what is read at once and may fail alone: a file, a member, a message. Its place is written behind that of the
file: `reports.zip!2024/may.pdf`, `archive.mbox#3!minutes.docx`; that of a row or record behind it: `prices.csv#7`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lib.params.sources import Limits
from lib.pipeline.errors import SmeltError
from lib.sources import html, records, turns
from lib.sources.content import Content, Rejected, gunzip, unzstd
from lib.sources.filetype import kind_of
from lib.sources.formats import archives, mail, paged, tables
from lib.sources.records import Record
from lib.sources.workers import Begin, Event, Found, Resume
from lib.text.documents import Document


class Columns(NamedTuple):
    """How records become documents."""

    source: str  # the name of the source, for messages
    text: str | None  # a template; None: the field `text`, or all fields as headed lines where there is none
    keep: list[str]


def parse(columns: Columns, limits: Limits, path: Path, resume: Resume) -> Iterator[Event]:
    """The parts and documents of one file, without the texts of parts that are known (see `workers`).

    Raises:
        SmeltError: a table does not have a column that the source names.
    """
    return _Reader(columns, limits, resume).read(Content.of_file(path, limits), "", 0)


class _Reader:
    def __init__(self, columns: Columns, limits: Limits, resume: Resume) -> None:
        self.columns, self.limits, self.resume = columns, limits, resume
        self.numbers = itertools.count()

    def read(self, content: Content | Rejected, at: str, depth: int) -> Iterator[Event]:
        """A part and what is in it."""
        part = next(self.numbers)
        if part in self.resume.without:
            return
        yield Begin(part, at)
        kind = "file"
        try:
            if isinstance(content, Rejected):
                raise content
            kind = kind_of(content)
            while kind in ("gzip", "zstd"):
                depth += 1
                self._check(depth)
                content = gunzip(content) if kind == "gzip" else unzstd(content)
                kind = kind_of(content)
            if kind in ("zip", "epub", "mbox", "mail"):
                yield from self._container(kind, content, at, depth)
            elif part >= self.resume.part:
                yield from self._leaf(kind, content, at)
        except Rejected as error:
            yield Found(at, "", reason=error.reason)
        except (SmeltError, MemoryError):
            raise
        except BaseException as error:  # whatever a parser raises (a panic of Rust is no Exception), the file is broken
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            yield Found(at, "", reason=f"broken_{kind}")

    def _check(self, depth: int) -> None:
        if depth > self.limits.depth:
            raise Rejected("nested_too_deep")

    # -- what has parts of its own

    def _container(self, kind: str, content: Content, at: str, depth: int) -> Iterator[Event]:
        if kind == "mail":
            yield from self._mail(content, at, depth)
            return
        self._check(depth + 1)
        if kind == "mbox":
            for number, message in enumerate(mail.messages(content), start=1):
                yield from self.read(message, f"{at}#{number}", depth + 1)
            return
        members = archives.epub_chapters(content) if kind == "epub" else archives.zip_members(content)
        empty = True
        for name, member in members:
            empty = False
            yield from self.read(member, f"{at}!{_readable(name)}", depth + 1)
        if empty:
            raise Rejected("empty")

    def _mail(self, content: Content, at: str, depth: int) -> Iterator[Event]:
        message = mail.parse(content)
        text, attached = mail.text_of(message), list(mail.attachments(message, content))
        yield self._document(at, text)
        for name, attachment in attached:
            nested = attachment if depth < self.limits.depth else Rejected("nested_too_deep")
            yield from self.read(nested, f"{at}!{_readable(name)}", depth + 1)

    # -- what is read as it is

    def _leaf(self, kind: str, content: Content, at: str) -> Iterator[Event]:
        if kind == "text":
            yield self._document(at, content.text())
        elif kind == "html":
            yield self._document(at, html.extract(content.read()) or "", "no_text_in_html")
        elif kind == "pdf":
            yield self._document(at, paged.pdf(content))
        elif kind == "docx":
            yield self._document(at, paged.docx(content))
        elif kind == "pptx":
            yield self._document(at, paged.pptx(content))
        elif kind in ("json", "jsonl"):
            yield from self._json(content, at, lines=kind == "jsonl")
        else:
            yield from self._table(kind, content, at)

    def _document(self, at: str, text: str, reason: str = "empty") -> Found:
        if len(text) > self.limits.document_mib * 2**20:
            return Found(at, "", reason="too_large")
        text = _readable(text)
        return Found(at, text) if text.strip() else Found(at, "", reason=reason)

    def _json(self, content: Content, at: str, lines: bool) -> Iterator[Event]:
        found: Iterable[Record]
        if lines:
            found = records.json_lines(content.lines())
        else:
            value = json.loads(content.text())
            if not isinstance(value, list):
                yield self._record(records.to_record(1, "", value), at)
                return
            found = (records.to_record(number, "", entry) for number, entry in enumerate(value, start=1))
        empty = True
        for record in found:
            empty = False
            yield self._record(record, f"{at}#{record.number}")
        if empty:
            raise Rejected("empty")

    def _record(self, record: Record, at: str) -> Found:
        template = self.columns.text
        if template is None and isinstance(record.value, dict) and "text" in record.value:
            template = "{text}"
        place = Document(at, "", "", "", "")
        if template is None and isinstance(record.value, dict) and "messages" in record.value:
            return self._conversation(record.value, at)
        document, reason = records.to_item(record, place, template, self.columns.keep)
        return Found(at, _readable(document.text), _readable(document.records), reason)

    def _conversation(self, record: dict[str, Any], at: str) -> Found:
        """Chat data of one's own: `messages`, as those of a hub's source, kept beside the text that they make."""
        found, reason = turns.messages(record["messages"])
        kept = {"messages": found, **{name: record[name] for name in self.columns.keep if name in record}}
        text = _readable(turns.render(found))
        return Found(at, text, _readable(json.dumps([kept], ensure_ascii=False)), reason)

    def _table(self, kind: str, content: Content, at: str) -> Iterator[Event]:
        if kind == "xlsx":
            parts = tables.read_xlsx(content)
        elif kind == "parquet":
            wanted = [*records.fields(self.columns.text), *self.columns.keep] if self.columns.text else None
            parts = tables.read_parquet(content, wanted)
        else:
            parts = tables.read_csv(content, tabs=kind == "tsv")
        empty = True
        for columns, rows in parts:
            if kind != "xlsx":  # whose sheets differ: a row without a field is rejected, as a line of jsonl is
                self._check_columns(columns, content)
            for place, row in rows:
                empty = False
                if isinstance(row, Rejected):
                    yield Found(at + _readable(place), "", reason=row.reason)
                else:
                    yield self._record(records.Record(0, "", row), at + _readable(place))
        if empty:
            raise Rejected("empty")

    def _check_columns(self, columns: list[str], content: Content) -> None:
        for key, names in (("text", records.fields(self.columns.text or "")), ("keep", self.columns.keep)):
            missing = [name for name in names if name not in columns]
            if missing:
                raise SmeltError(
                    f"{content.name} has no column {', '.join(map(repr, missing))}, which sources."
                    f"{self.columns.source}.{key} in params.yaml names; it has: {', '.join(columns)}. Name one of "
                    f"these, or set `text: null` to take all columns as headed lines; files with other columns want a "
                    f"source of their own"
                )


def _readable(text: str) -> str:
    """Without halves of surrogate pairs, which cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
