"""Documents from a dataset on a Hugging Face hub, at a pinned commit, in the set's own order.

Streamed: a row is read when it is asked for, and a limit ends the reading and the fetching. What was fetched stays in
the cache, so a killed run fetches nothing twice, and another filter or template fetches nothing at all.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lib.params.sources import Comparison, HubSource
from lib.pipeline.errors import SmeltError
from lib.sources import hub_layout, records, rows, turns
from lib.sources.hub_client import Hub
from lib.sources.hub_file import HubFile
from lib.sources.records import Item, Record
from lib.text.documents import Document

_LOOK_AT = 1000  # rows after which a column that was in none of them is taken for missing
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, listed: value in listed,
    "not in": lambda value, listed: value not in listed,
}


def hub_cache(root: Path, folder: str) -> Path:
    """Where files of hubs are kept: `SMELT_HUB`, else `folder` of the main workspace."""
    given = os.environ.get("SMELT_HUB")
    return Path(given) if given else Path(os.environ.get("DVC_ROOT") or root) / folder


def read(cache: Path, name: str, source: HubSource, log: Callable[[str], None]) -> Iterator[Item]:
    """The documents of source `name`, each with the reason why it is rejected, or None.

    Rows that the filter leaves out are rejects without a text. With a `limit` or `max_mib`, what comes after the last
    document that fits was not read.

    Raises:
        SmeltError: the source is not pinned; the hub, the commit, the config, the split or a column is not there; a
            file is damaged.
    """
    if source.revision is None:
        raise SmeltError(f"sources.{name}.revision is null: `make pin` writes the dataset's current commit there")
    with Hub(source.repo, source.revision, cache, log) as hub:
        listed = hub.files()
        readme = ""
        if "README.md" in listed:
            with HubFile(hub, "README.md") as stream:
                readme = stream.read().decode(errors="replace")
        files = hub_layout.resolve(listed, readme, source.config, source.split, source.repo)
        yield from _cut(_items(_rows(hub, files, name, source), source), source.limit, source.max_mib)


def columns(source: HubSource) -> set[str] | None:
    """The columns that a source reads; None for all, where the text is all of a row."""
    wanted = {*source.keep, *(comparison.column for comparison in source.filter)}
    if source.licence_column:
        wanted.add(source.licence_column)
    if source.messages is None:
        return None if source.text is None else wanted | set(records.fields(source.text))
    if isinstance(source.messages, str):
        return wanted | {source.messages}
    return wanted | {column for column in source.messages.model_dump().values() if column}


def _rows(hub: Hub, files: list[str], name: str, source: HubSource) -> Iterator[tuple[Document, Record]]:
    """Every row of the files, with the document that it will be, its text still empty."""
    wanted, seen, number = columns(source), set(), 0
    for path in files:
        with HubFile(hub, path) as stream:
            try:
                for record in rows.read(stream, path, wanted):
                    number += 1
                    if isinstance(record.value, dict) and number <= _LOOK_AT:
                        seen |= record.value.keys()
                    if number == _LOOK_AT:
                        _check_columns(wanted, seen, path, source)
                    place = f"{path}#{record.number}"
                    uri = f"hf://datasets/{source.repo}@{source.revision}/{place}"
                    yield Document(f"{name}/{place}", "", uri, name, source.licence), record
                stream.complete()
            except KeyError as error:
                _check_columns(wanted, set(error.args[0]), path, source)
            except ValueError as error:
                raise SmeltError(
                    f"{source.repo}: {path} cannot be read: {error}. If it was put into the cache by hand, or the "
                    f"machine went down while it was fetched, remove it from {hub.folder} and run the command again"
                ) from None
    if number < _LOOK_AT:
        _check_columns(wanted, seen, files[-1], source)


def _check_columns(wanted: set[str] | None, there: set[str], path: str, source: HubSource) -> None:
    missing = sorted((wanted or set()) - there)
    if missing and there:
        raise SmeltError(
            f"{source.repo}: {path} has no column {', '.join(map(repr, missing))}; it has: {', '.join(sorted(there))}. "
            f"Correct text, messages, keep, licence_column or filter of the source in params.yaml"
        )


def _items(found: Iterable[tuple[Document, Record]], source: HubSource) -> Iterator[Item]:
    if source.messages is None or isinstance(source.messages, str):
        for place, record in found:
            yield _refused(place, record, source) or _item(_licensed(place, record, source), record, source)
        return
    # A threaded table: rows that are refused come before the thread that they were read with.
    refused: list[Item] = []

    def accepted() -> Iterator[turns.Row]:
        for place, record in found:
            if item := _refused(place, record, source):
                refused.append(item)
            else:
                yield turns.Row(_licensed(place, record, source), record.value)

    for branch in turns.branches(accepted(), source.messages):
        yield from refused
        refused.clear()
        yield _conversation(branch.row.place, branch.row.value, branch.messages, branch.reason, source)
    yield from refused


def _refused(place: Document, record: Record, source: HubSource) -> Item | None:
    """The reject that a row is, before anything is made of it, or None."""
    if record.reason is not None:
        return place._replace(text=record.value), record.reason
    if not isinstance(record.value, dict):
        return place._replace(text=json.dumps(record.value, ensure_ascii=False)), "not_an_object"
    if not all(_holds(comparison, record.value, source) for comparison in source.filter):
        return place, "filtered"
    return None


def _holds(comparison: Comparison, row: dict[str, Any], source: HubSource) -> bool:
    value = row.get(comparison.column)
    if value is None:
        return comparison.op in ("!=", "not in")
    try:
        return _COMPARE[comparison.op](value, comparison.value)
    except TypeError:
        raise SmeltError(
            f"{source.repo}: the filter compares column {comparison.column!r}, which holds {value!r}, with "
            f"{comparison.value!r}: {comparison.op} needs two numbers or two texts"
        ) from None


def _licensed(place: Document, record: Record, source: HubSource) -> Document:
    given = record.value.get(source.licence_column) if source.licence_column else None
    return place._replace(licence=str(given).strip()) if given and str(given).strip() else place


def _item(place: Document, record: Record, source: HubSource) -> Item:
    if source.messages is None:
        return records.to_item(record, place, source.text, source.keep)
    found, reason = turns.messages(record.value.get(source.messages))
    return _conversation(place, record.value, found, reason, source)


def _conversation(
    place: Document, row: dict[str, Any], found: list[turns.Message], reason: str | None, source: HubSource
) -> Item:
    kept = {"messages": found, **{name: row[name] for name in source.keep if name in row}}
    document = place._replace(text=turns.render(found), records=json.dumps([kept], ensure_ascii=False))
    return document, reason


def _cut(items: Iterable[Item], limit: int | None, max_mib: float | None) -> Iterator[Item]:
    """The items up to the document that would be one too many, or whose text would be too much."""
    documents = size = 0
    for document, reason in items:
        if reason is None:
            documents, size = documents + 1, size + len(document.text.encode())
            if max_mib is not None and size > max_mib * 2**20:
                return
        yield document, reason
        if documents == limit:
            return
