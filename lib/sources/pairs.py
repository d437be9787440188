"""Pairs of a better and a worse answer from files: JSONL, JSON, CSV, TSV and parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.pipeline.errors import SmeltError
from lib.sources import rows
from lib.text.preferences import Preferred, missing_columns, pair


def read_pairs(folder: Path) -> Iterator[tuple[Preferred, dict[str, Any]]]:
    """The pair or reject of each row, of every file of the folder, and its file and row.

    Raises:
        SmeltError: there is no such file, or one that cannot be read or lacks a column.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise SmeltError(
            "preferences.from is files, and data/pairs has none. Put JSONL, JSON, CSV or parquet files there, whose "
            "rows have prompt, chosen and rejected, or set preferences.from to answers or null"
        )
    for path in files:
        name = path.relative_to(folder).as_posix()
        if rows.kind(name) is None:
            raise SmeltError(f"data/pairs/{name} is none of jsonl, json, csv, tsv and parquet; convert or remove it")
        known = False  # whether a row was read: the first one says what columns there are
        try:
            with path.open("rb") as stream:
                for record in rows.read(stream, name, None):
                    where = {"file": name, "row": record.number}
                    if record.reason or not isinstance(record.value, dict):
                        yield Preferred([], "", "", record.reason or "not_an_object"), where
                        continue
                    if not known and (lacking := missing_columns(record.value)):
                        there = ", ".join(map(str, record.value)) or "nothing"
                        raise SmeltError(
                            f"data/pairs/{name} has {lacking}; it has: {there}. A row of pairs has prompt, chosen and "
                            f"rejected"
                        )
                    known = True
                    yield pair(record.value), where
        except ValueError as error:
            raise SmeltError(f"data/pairs/{name} cannot be read: {error}. Mend or remove it") from None
