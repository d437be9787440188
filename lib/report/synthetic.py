"""Section on what a teacher wrote: how much was asked for and kept, why the rest was not, the cost, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.report.formats import NONE, count, percent
from lib.report.page import Block, Column, Details, Excerpt, Note, Section, Table
from lib.report.results import Results


def synthetic(results: Results) -> Section:
    """What `synthesize` did. Asked = kept + rejected for every kind, or the page says where not."""
    metrics = results.metrics("synthesize")
    title = "What a teacher wrote"
    if not metrics["planned"]:
        return Section("synthetic", title, [Note("Nothing: synthesize.sources in params.yaml asks for no passages.")])
    blocks: list[Block] = [Note(_summary(metrics), warning=_unbalanced(metrics))]
    blocks.append(_table("By kind", "kind", metrics["kinds"]))
    blocks.append(_table("By source", "source", metrics["sources"]))
    samples = results.written()
    shown = [_excerpt("kept", samples["kept"])] if samples["kept"] else []
    shown += [_excerpt(f"rejected: {reason}", found) for reason, found in samples["rejected"].items()]
    if shown:
        blocks.append(Details("Examples of what was kept and of what was rejected", shown))
    return Section("synthetic", title, blocks)


def _unbalanced(metrics: Mapping[str, Any]) -> bool:
    rows = [metrics, *metrics["kinds"].values(), *metrics["sources"].values()]
    return any(row["asked"] != row["kept"] + row["rejected"] for row in rows)


def _summary(metrics: Mapping[str, Any]) -> str:
    cost, stopped = metrics["cost"], metrics["stopped_by_budget"]
    what = (
        f"Of {count(metrics['planned'])} items that were wanted, {count(metrics['asked'])} were asked for, and "
        f"{count(metrics['kept'])} kept, {count(metrics['rejected'])} rejected."
    )
    if _unbalanced(metrics):
        what += " The counts do not add up: the stage lost items, or their reasons."
    if stopped:
        what += f" The budget ended it: {stopped}."
    spent = f" It took {count(cost['requests'])} requests, {count(cost['tokens_in'])} tokens of prompts and "
    spent += f"{count(cost['tokens_out'])} of answers" + (
        f", {cost['money']:.2f} by the prices given." if cost["money"] else "."
    )
    return f"{what}{spent} The teacher: {metrics['teacher']}."


def _table(caption: str, name: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = [
        [
            key,
            count(row["asked"]),
            count(row["kept"]),
            percent(row["kept"] / row["asked"]) if row["asked"] else NONE,
            ", ".join(f"{reason} {count(number)}" for reason, number in row["reasons"].items()) or NONE,
        ]
        for key, row in rows.items()
    ]
    columns = [Column(name), *map(Column, ("asked for", "kept", "share kept")), Column("rejected for", numeric=False)]
    return Table(caption, columns, cells)


def _excerpt(title: str, samples: list[dict[str, str]]) -> Excerpt:
    pieces = []
    for sample in samples:
        pieces.append((sample["id"], sample["passage"]))
        detail = f" ({sample['detail']})" if sample["detail"] else ""
        pieces.append((f"what the teacher wrote{detail}", sample["written"]))
    return Excerpt(title, pieces)
