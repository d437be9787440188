"""Section on personal data and evaluation items: what is looked for, how surely it is found, and what was taken out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.report.formats import NONE, count, estimate
from lib.report.page import Block, Column, Note, Section, Table
from lib.report.results import Results

_GROUPS = ("patterned", "names")


def privacy(results: Results, sources: Mapping[str, Any]) -> Section:
    """Personal data by source, with the measured recall and precision of the search; and decontamination."""
    blocks: list[Block] = [
        Note(
            "Recall is the share of labelled values that are covered whole, precision the share of findings that are "
            "right, on invented documents whose templates and names the search was not developed on."
        ),
        _measured(results.metrics("pii")["held_out"]),
        _found(results, sources),
        _decontamination(results),
    ]
    return Section("privacy", "Personal data and evaluation items", blocks)


def _measured(half: Mapping[str, Any]) -> Table:
    types = half["types"]
    rows = [
        [
            name,
            count(row["labelled"]),
            estimate(row["recall"], as_percent=True),
            estimate(row["precision"], as_percent=True),
            estimate(row["recall_typed"], as_percent=True) if "recall_typed" in row else NONE,
        ]
        for name, row in types.items()
        if name not in _GROUPS and row["labelled"]
    ]
    rows += [
        [
            f"all {name}",
            count(types[name]["labelled"]),
            estimate(types[name]["recall"], as_percent=True),
            estimate(types[name]["precision"], as_percent=True),
            estimate(types[name]["recall_typed"], as_percent=True) if "recall_typed" in types[name] else NONE,
        ]
        for name in _GROUPS
        if types[name]["labelled"]
    ]
    titles = ("labelled values", "recall", "precision", "recall of the right kind of name")
    caption = f"How surely personal data is found, on {count(half['documents'])} labelled documents"
    return Table(caption, [Column("type"), *map(Column, titles)], rows)


def _found(results: Results, sources: Mapping[str, Any]) -> Table:
    rows = []
    for name in sources:
        pii = results.metrics("clean", name)["pii"]
        values = ", ".join(f"{kind} {count(number)}" for kind, number in pii["values"].items())
        looked = pii["policy"] != "keep"
        rows.append(
            [
                name,
                pii["policy"],
                count(pii["documents_redacted"]) if looked else NONE,
                count(pii["documents_dropped"]) if looked else NONE,
                (values or "nothing found") if looked else "not looked for",
            ]
        )
    columns = [Column("source"), Column("policy", numeric=False), Column("documents redacted"), Column("dropped")]
    return Table("Personal data by source", [*columns, Column("values found", numeric=False)], rows)


def _decontamination(results: Results) -> Table:
    rows = [
        [name, count(row["items"]), count(row["too_short"]), count(row["found"]), count(row["documents"])]
        for name, row in results.metrics("dedup")["decontamination"].items()
    ]
    titles = ("items", "too short to look for", "found", "documents removed for them")
    return Table("Items of evaluation sets in the documents", [Column("set"), *map(Column, titles)], rows)
