"""JSON and JSON lines: from records to documents.

A record becomes text through a template over its fields, or, without one, as headed lines. Fields that are worth
keeping beside the text (titles, questions, answers) go into the document's `records`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any, NamedTuple

from lib.text.documents import Document

Item = tuple[Document, str | None]  # a document, and the reason why it is rejected or None

_FIELD = re.compile(r"\{([^{}]+)\}")
_BLOCK_TAGS = {"br", "p", "div", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "h5", "h6"}


class Record(NamedTuple):
    number: int  # from 1: its place in the file, or its line
    heading: str
    value: Any
    reason: str | None = None  # why it could not be read


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def readable(value: Any) -> bool:
    """JSON can spell half of a surrogate pair, which is no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(content: Any, paths: Iterable[str]) -> str:
    """The first of `paths` ("Government/Country name/text") that leads to a text other than "none", or nothing."""
    for path in paths:
        value = content
        for part in path.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and (name := plain_text(value)) and name.casefold() != "none":
            return name
    return ""


def read_json(text: str, values: bool, heading: Iterable[str] = ()) -> list[Record]:
    """The file as one record, or each value of its top-level object or array, headed by its key.

    `heading`: paths into the file; the first that leads anywhere is put before each key.

    Raises:
        ValueError: it is not JSON.
    """
    content = json.loads(text)
    name = _name(content, heading)
    if not values or not isinstance(content, dict | list):
        pairs: Iterable[tuple[str, Any]] = [("", content)]
    else:
        pairs = content.items() if isinstance(content, dict) else (("", value) for value in content)
    found = []
    for number, (key, value) in enumerate(pairs, start=1):
        found.append(to_record(number, ": ".join(part for part in (name, plain_text(key)) if part), value))
    return found


def to_record(number: int, heading: str, value: Any) -> Record:
    whole = readable([heading, value])
    return Record(number, heading, value) if whole else Record(number, "", "", "broken_unicode")


def read_json_lines(text: str) -> list[Record]:
    """Each line that is not empty, numbered from 1; one that is broken keeps its text as the value."""
    return list(json_lines(text.split("\n")))


def json_lines(lines: Iterable[str | None]) -> Iterator[Record]:
    """The same of lines that come one by one; None stands for one that is too large."""
    for number, line in enumerate(lines, start=1):
        if line is None:
            yield Record(number, "", "", "too_large")
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Record(number, "", line, "broken_json")
            continue
        whole = "\\u" not in line or readable(value)  # only an escape can spell half a pair
        yield Record(number, "", value) if whole else Record(number, "", line, "broken_unicode")


# ----------------------------------------------------------------------------------------------------------------------
# Text of a record


class _PlainText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _BLOCK_TAGS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCK_TAGS - {"br"}:
            self.parts.append("\n")


def plain_text(value: str) -> str:
    """Text without HTML tags and entities; breaks and paragraphs become one newline."""
    if "<" in value or "&" in value:
        parser = _PlainText()
        parser.feed(value)
        parser.close()
        value = "".join(parser.parts)
    lines = (" ".join(line.split()) for line in value.split("\n"))
    return "\n".join(line for line in lines if line)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return plain_text(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def render(value: Any, indent: str = "") -> list[str]:
    """A record as headed lines, `Climate: tropical`; what is nested is indented.

    An object's own `text` stands after its heading: {"Area": {"text": "5 sq km", "note": "..."}}. A heading that its
    text repeats is said once.
    """
    if isinstance(value, list):
        if all(not isinstance(entry, dict | list) for entry in value):
            return [indent + ", ".join(_scalar(entry) for entry in value)]
        return [line for entry in value for line in render(entry, indent)]
    if not isinstance(value, dict):
        return [indent + line for line in _scalar(value).split("\n")]
    lines = []
    for key, entry in value.items():
        heading, text, below = plain_text(key), "", entry
        if isinstance(entry, dict):
            text = _scalar(entry.get("text"))
            below = {name: child for name, child in entry.items() if name != "text"}
        elif not isinstance(entry, list) or all(not isinstance(child, dict | list) for child in entry):
            text, below = "\n".join(render(entry)), {}
        label, colon, rest = text.partition(":")
        if colon and heading.casefold().endswith(label.strip().casefold()):
            text = rest.strip()
        first, *more = text.split("\n")
        nested = render(below, indent + "  ") if below else []
        if first or nested:
            lines += [f"{indent}{heading}: {first}".rstrip(), *(indent + line for line in more), *nested]
    return lines


def fields(template: str) -> list[str]:
    """The names of the fields that a template has."""
    return _FIELD.findall(template)


def fill(template: str, record: dict[str, Any]) -> str:
    """The template with each `{field}` replaced by the record's value of that name.

    Raises:
        KeyError: the record has no such field.
    """
    return _FIELD.sub(lambda match: _text(record[match[1]]), template)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


# ----------------------------------------------------------------------------------------------------------------------
# Documents


def to_item(record: Record, place: Document, template: str | None, keep: list[str]) -> Item:
    """The document of `record`: `place`, whose text is still empty, with the text and the kept fields.

    Rejected are records that could not be read, that are no object though the template wants one, that lack one of its
    fields, or that have no text.
    """
    value = record.value
    if record.reason is not None:
        return place._replace(text=value), record.reason
    if template is None:
        body = "\n".join(render(value))
        text = f"{record.heading}\n\n{body}" if record.heading and body else body
    elif not isinstance(value, dict):
        return place._replace(text=_text(value)), "not_an_object"
    else:
        try:
            text = fill(template, value)
        except KeyError:
            return place._replace(text=_text(value)), "missing_field"
    if not text.strip():
        return place, "empty"
    kept = {name: value[name] for name in keep if name in value} if isinstance(value, dict) else {}
    return place._replace(text=text, records=json.dumps([kept] if kept else [], ensure_ascii=False)), None


def merge(items: Iterable[Item]) -> Iterator[Item]:
    """Documents with one text become the first of them, with the records of all; rejects pass."""
    merged: dict[str, tuple[Document, list[dict[str, Any]]]] = {}
    for document, reason in items:
        if reason is not None:
            yield document, reason
        elif document.text in merged:
            merged[document.text][1].extend(document.kept)
        else:
            merged[document.text] = document, document.kept
    for document, kept in merged.values():
        yield document._replace(records=json.dumps(kept, ensure_ascii=False)), None
