"""Tables: each row a record of its columns. Rows are read one after another, whatever the size of the file."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lib.sources import encodings
from lib.sources.content import Content, Rejected

Row = tuple[str, dict[str, Any] | Rejected]  # what its place adds to that of the file ("#7", "!Sheet1#7"), its record
_DELIMITERS = ",;\t|"
_LOOK = 20  # lines that tell the delimiter
_BATCH = 64  # rows of a parquet file in memory at once


def columns_of(names: Sequence[Any]) -> list[str]:
    """Names of columns, each its own: one without a name is `column 3`, the second of one name is `name 2`."""
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        wanted = free = str("" if name is None else name).strip() or f"column {number}"
        count = 1
        while free in found:
            count += 1
            free = f"{wanted} {count}"
        found.append(free)
    return found


def _record(columns: list[str], cells: Sequence[Any]) -> dict[str, Any] | Rejected:
    if len(cells) > len(columns):
        return Rejected("more_cells_than_columns")
    return dict(zip(columns, [*cells, *[""] * (len(columns) - len(cells))], strict=True))


def delimiter(sample: str) -> str:
    """Which of comma, semicolon, tab and bar divides the most columns in the same way in every line; else a comma."""
    best, most = ",", 1
    for candidate in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(io.StringIO(sample), delimiter=candidate) if row]
        except csv.Error:
            continue
        widths = {len(row) for row in rows[: max(1, len(rows) - 1)]}  # the last one may be cut off
        if len(widths) == 1 and (width := widths.pop()) > most:
            best, most = candidate, width
    return best


def read_csv(content: Content, tabs: bool) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """The names of the columns, from the first line that is not empty, and the rows; a row's number is that of its
    record, the header being the first.

    Raises:
        Rejected: `broken_csv`.
    """
    csv.field_size_limit(content.budget.document)

    def lines() -> Iterator[str]:
        for line in content.lines():
            if line is None:
                raise Rejected("too_large")
            yield line + "\n"

    head = content.head()
    text = encodings.decode(head, encodings.detect(head, complete=False))
    reader = csv.reader(lines(), delimiter="\t" if tabs else delimiter("".join(text.splitlines(True)[:_LOOK])))
    records = (cells for cells in reader if any(cell.strip() for cell in cells))

    def rows(columns: list[str]) -> Iterator[Row]:
        for number, cells in enumerate(records, start=2):
            yield f"#{number}", _record(columns, cells)

    try:
        first = next(records, None)
        if first is None:
            raise Rejected("empty")
        columns = columns_of(first)
        yield columns, rows(columns)
    except csv.Error:
        raise Rejected("broken_csv") from None


def read_xlsx(content: Content) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """The sheets of a workbook that have cells: names from the first row, then the rows that are not empty."""
    import python_calamine

    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(content.open_seekable())  # type: ignore[arg-type]
    except python_calamine.PasswordError:
        raise Rejected("encrypted") from None
    empty = True
    for name in workbook.sheet_names:
        cells = workbook.get_sheet_by_name(name).iter_rows()
        filled = ((number, row) for number, row in enumerate(cells, start=1) if any(cell != "" for cell in row))
        first = next(filled, None)
        if first is None:
            continue
        empty = False
        columns = columns_of(first[1])
        yield columns, _sheet_rows(name, columns, filled)
    if empty:
        raise Rejected("empty")


def _sheet_rows(sheet: str, columns: list[str], filled: Iterable[tuple[int, list[Any]]]) -> Iterator[Row]:
    for number, cells in filled:
        yield f"!{sheet}#{number}", _record(columns, [_plain(cell) for cell in cells])


def read_parquet(content: Content, wanted: Iterable[str] | None) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """The columns of a parquet file, and its rows with those `wanted`, or with all."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(content.open_seekable(), pre_buffer=False) as file:
        columns = list(file.schema_arrow.names)

        def rows() -> Iterator[Row]:
            number = 0
            chosen = None if wanted is None else [name for name in columns if name in set(wanted)]
            for batch in file.iter_batches(_BATCH, columns=chosen, use_threads=False):
                for record in batch.to_pylist():
                    number += 1
                    yield f"#{number}", {name: _plain(value) for name, value in record.items()}

        yield columns, rows()


def _plain(value: Any) -> Any:
    """A cell as JSON has it: dates in ISO 8601, whole numbers without a point, bytes as text."""
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return encodings.decode(value, encodings.detect(value))
    return str(value)
