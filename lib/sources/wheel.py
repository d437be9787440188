"""Documents from the members of a wheel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lib.params.sources import PackageRecordSource, PackageTextSource
from lib.pipeline.errors import SmeltError
from lib.sources import package, plain, records
from lib.sources.records import Item, Record
from lib.text.documents import Document


def read(wheel: Path, name: str, source: PackageTextSource | PackageRecordSource) -> Iterator[Item]:
    """The documents of source `name`, each with the reason why it is rejected, or None.

    Raises:
        SmeltError: a pattern of `members` matches nothing.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = package.select(archive, source.members, source.exclude)
        if isinstance(source, PackageTextSource):
            yield from _text_files(archive, members, name, source)
        else:
            items = _records(archive, members, name, source)
            yield from records.merge(items) if source.keep else items


def _place(member: str, number: int | str, name: str, source: PackageTextSource | PackageRecordSource) -> Document:
    place = f"{member}#{number}" if number else member
    return Document(f"{name}/{place}", "", f"pypi:{source.package}/{place}", name, source.licence)


def _text_files(archive: zipfile.ZipFile, members: list[str], name: str, source: PackageTextSource) -> Iterator[Item]:
    for member in members:
        try:
            text = plain.decode(archive.read(member))
        except UnicodeDecodeError:
            yield _place(member, "", name, source), "not_utf8"
            continue
        if not text.strip():
            yield _place(member, "", name, source), "empty"
            continue
        if source.unwrap:
            text = plain.unwrap(text)
        if source.split is None:
            yield _place(member, "", name, source)._replace(text=text), None
            continue
        for number, piece in enumerate(plain.split(text, source.split), start=1):
            yield _place(member, number, name, source)._replace(text=piece), None


def _records(archive: zipfile.ZipFile, members: list[str], name: str, source: PackageRecordSource) -> Iterator[Item]:
    held_out = _held_out(archive, source)
    for member in members:
        try:
            found = _parse(plain.decode(archive.read(member)), source)
        except UnicodeDecodeError:
            yield _place(member, "", name, source), "not_utf8"
            continue
        except ValueError:
            yield _place(member, "", name, source), "broken_json"
            continue
        for record in found:
            place = _place(member, record.number, name, source)
            document, reason = records.to_item(record, place, source.text, source.keep)
            if reason is None and source.subtract and _field(record, source.subtract.field) in held_out:
                reason = "subtracted"
            yield document, reason


def _parse(text: str, source: PackageRecordSource) -> list[Record]:
    if source.format == "jsonl":
        return records.read_json_lines(text)
    return records.read_json(text, source.records == "values", source.heading)


def _field(record: Record, field: str) -> str | None:
    return json.dumps(record.value[field]) if isinstance(record.value, dict) and field in record.value else None


def _held_out(archive: zipfile.ZipFile, source: PackageRecordSource) -> set[str]:
    """The values of the subtracted field in the subtracted members.

    Raises:
        SmeltError: a member cannot be read, or has no such field: then nothing would be left out, unnoticed.
    """
    if source.subtract is None:
        return set()
    values = set()
    for member in package.select(archive, source.subtract.members):
        try:
            found = _parse(plain.decode(archive.read(member)), source)
        except ValueError as error:
            raise SmeltError(f"{source.package}: cannot subtract {member}: {error}") from None
        fields = {value for record in found if (value := _field(record, source.subtract.field)) is not None}
        if not fields:
            raise SmeltError(
                f"{source.package}: no record of {member} has the field {source.subtract.field!r} to subtract by"
            )
        values |= fields
    return values
