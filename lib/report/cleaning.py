"""Section on cleaning: what each step took and changed, lengths and languages of documents, and what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lib.report import charts
from lib.report.formats import NONE, compact, count, percent, size
from lib.report.page import Block, Column, Details, Excerpt, Figure, Figures, Note, Section, Table
from lib.report.results import Results

LANGUAGES = 12  # bars; the rest are added up


def cleaned(results: Results, sources: Iterable[str]) -> Section:
    """What the steps of `clean` did to every source."""
    metrics = {name: results.metrics("clean", name) for name in sources}
    full = {name: values for name, values in metrics.items() if values["documents_in"]}
    blocks: list[Block] = []
    if full:
        blocks.append(Figures([_lengths(full.values()), _languages(full.values())]))
        blocks.append(Details("Every step of every source", [_steps(name, values) for name, values in full.items()]))
    samples = [block for name in full for block in _samples(name, results.rejects(name))]
    if samples:
        note = Note("At most ten documents of each reason, drawn by a hash of their ids; the first 300 characters.")
        blocks.append(Details("Examples of what was dropped", [note, *samples]))
    return Section("cleaning", "How it was cleaned", blocks or [Note("There were no documents to clean.")])


def _sum(counters: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _bars(values: Iterable[tuple[str, int]], axis: str, label: str) -> str:
    frame = pd.DataFrame(
        [(name, "base", number, compact(number), 0.0) for name, number in values],
        columns=["name", "kind", "value", "text", "stderr"],
    )
    return charts.bars(frame, {"base": "base"}, axis, "~s", label)


def _lengths(metrics: Iterable[Mapping[str, Any]]) -> Figure:
    found = _sum(values["lengths"] for values in metrics)
    classes = sorted((int(limit), number) for limit, number in found.items())
    chart = _bars(
        [(f"to {limit:,}", number) for limit, number in classes],
        "documents kept",
        "Documents kept, by their length in characters, with the figures.",
    )
    return Figure(chart, "Documents kept, by their length in characters.")


def _languages(metrics: Iterable[Mapping[str, Any]]) -> Figure:
    found = _sum(values["languages"] for values in metrics)
    shown = found.most_common(LANGUAGES)
    if rest := found.total() - sum(number for _, number in shown):
        shown.append(("others", rest))
    chart = _bars(
        shown or [("not measured", 0)], "documents", "Documents by the language that was detected, with the figures."
    )
    return Figure(chart, "Documents by the language that was detected, kept or not, where the rules ask for it.")


def _steps(source: str, metrics: Mapping[str, Any]) -> Table:
    rows = []
    for name, step in metrics["steps"].items():
        dropped = step["documents_in"] - step["documents_out"]
        what = [f"{reason} {count(number)}" for reason, number in step["reasons"].items()]
        what += [f"{kind}: {count(number)} characters" for kind, number in step["removed"].items()]
        rows.append(
            [
                name,
                count(step["documents_in"]),
                count(dropped),
                percent(dropped / step["documents_in"]) if step["documents_in"] else NONE,
                size(step["bytes_in"]),
                size(step["bytes_out"]),
                ", ".join(what) or NONE,
            ]
        )
    titles = ("documents in", "dropped", "share", "text in", "text out")
    return Table(source, [Column("step"), *map(Column, titles), Column("of these", numeric=False)], rows)


def _samples(source: str, reasons: Mapping[str, list[dict[str, str]]]) -> list[Block]:
    return [
        Excerpt(f"{source}: {reason}", [(sample["uri"], sample["text"]) for sample in samples])
        for reason, samples in reasons.items()
    ]
