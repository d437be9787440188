"""Sections on the text: which sources went in, how much of each, and what was left out for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib.params.sources import SourceBase
from lib.report import charts
from lib.report.formats import NONE, count, percent
from lib.report.page import Block, Column, Details, Figure, Note, Section, Table
from lib.report.results import Results

SPLITS = ("available", "train", "val", "test")
STAGE_COLOURS = {"collect": "reference", "clean": "base", "dedup": "chat"}


def mixture(results: Results, sources: Mapping[str, SourceBase]) -> Section:
    """How many documents and tokens of every source the model was trained on, beside what was asked for."""
    mixed, encoded = results.metrics("mix")["sources"], results.metrics("encode")["sources"]
    shares = [
        (name, kind, table.get(name, {}).get(key, 0.0))
        for name in sources
        for kind, table, key in (("requested", mixed, "requested_share"), ("reached", encoded, "train_share"))
    ]
    chart = charts.paired_bars(
        pd.DataFrame(shares, columns=["name", "kind", "value"]),
        {"requested": "baseline", "reached": "base"},
        "share of the training tokens",
        "~%",
        "Requested and reached share of the training tokens per source. The table below has the figures.",
    )
    empty = {"requested_share": 0.0, "epochs": 0.0, "documents": dict.fromkeys(SPLITS, 0)}
    no_tokens = {"train_tokens": 0, "train_share": 0.0, "bytes_per_token": None}
    rows = []
    for name, source in sources.items():
        documents, tokens = mixed.get(name, empty), encoded.get(name, no_tokens)
        rows.append(
            [
                name,
                source.licence,
                *(count(documents["documents"][split]) for split in SPLITS),
                percent(documents["requested_share"]),
                percent(tokens["train_share"]),
                count(tokens["train_tokens"]),
                f"{documents['epochs']:.2f}",
                f"{tokens['bytes_per_token']:.2f}" if tokens["bytes_per_token"] else NONE,
            ]
        )
    total = [
        "all",
        "",
        *(count(sum(source["documents"][split] for source in mixed.values())) for split in SPLITS),
        percent(sum(source["requested_share"] for source in mixed.values())),
        percent(sum(source["train_share"] for source in encoded.values())),
        count(sum(source["train_tokens"] for source in encoded.values())),
        "",
        "",
    ]
    titles = [
        "available",
        "train",
        "val",
        "test",
        "requested",
        "reached",
        "training tokens",
        "passes",
        "bytes per token",
    ]
    columns = [Column("source"), Column("licence", numeric=False), *map(Column, titles)]
    blocks: list[Block] = [
        Figure(chart, "Share of the training tokens that the weights in params.yaml ask for, and the share reached."),
        Table("Documents and tokens per source", columns, rows, total),
    ]
    empties = [name for name in sources if not mixed.get(name, empty)["documents"]["available"]]
    if empties:
        blocks.append(Note(f"No documents in: {', '.join(empties)}."))
    return Section("documents", "What it read", [*blocks, _tokenizer(results)])


def _tokenizer(results: Results) -> Note:
    tokenizer, tokens = results.metrics("tokenizer"), results.metrics("encode")["tokens"]
    return Note(
        f"The tokenizer has {count(tokenizer['vocab_size'])} entries and spends a token on "
        f"{tokenizer['bytes_per_token']:.2f} bytes of its training text. Held out: {count(tokens['val'])} tokens for "
        f"validation, {count(tokens['test'])} for the test."
    )


@dataclass(frozen=True)
class _Fate:
    """What became of the documents of a source."""

    read: int
    collect: Counter[str]  # rejects by reason
    clean: Counter[str]
    duplicates: int
    kept: int

    @property
    def unaccounted(self) -> int:
        return self.read - self.collect.total() - self.clean.total() - self.duplicates - self.kept

    def row(self, name: str) -> list[str]:
        numbers = (self.read, self.collect.total(), self.clean.total(), self.duplicates, self.kept)
        return [name, *map(count, numbers), percent(self.kept / self.read) if self.read else NONE]


def _fate(results: Results, name: str) -> _Fate:
    collect, clean = results.metrics("collect", name), results.metrics("clean", name)
    dedup = results.metrics("dedup")["sources"].get(name, {"documents_in": 0, "documents_out": 0})
    return _Fate(
        read=collect["documents"] + collect["rejected"],
        collect=Counter(collect["reasons"]),
        clean=Counter(clean["reasons"]),
        duplicates=dedup["documents_in"] - dedup["documents_out"],
        kept=dedup["documents_out"],
    )


def _total(fates: list[_Fate]) -> _Fate:
    return _Fate(
        sum(fate.read for fate in fates),
        sum((fate.collect for fate in fates), Counter()),
        sum((fate.clean for fate in fates), Counter()),
        sum(fate.duplicates for fate in fates),
        sum(fate.kept for fate in fates),
    )


def rejected(results: Results, sources: Mapping[str, SourceBase]) -> Section:
    """What every stage left out and why. Read = kept + rejected for every source, or the page says where not."""
    fates = {name: _fate(results, name) for name in sources}
    total = _total(list(fates.values()))
    duplicates = Counter(results.metrics("dedup")["reasons"])
    wrong = {name: fate.unaccounted for name, fate in fates.items() if fate.unaccounted}
    if duplicates.total() != total.duplicates:
        wrong["the reasons of dedup"] = total.duplicates - duplicates.total()
    if wrong:
        where = ", ".join(f"{name} ({difference:+,})" for name, difference in wrong.items())
        balance = Note(f"The counts do not add up: {where}. A stage lost documents, or their reasons.", warning=True)
    else:
        balance = Note(
            f"{count(total.read)} documents read = {count(total.kept)} kept + {count(total.read - total.kept)} "
            "rejected, and likewise for every source."
        )
    blocks: list[Any] = [balance]
    by_stage = {"collect": total.collect, "clean": total.clean, "dedup": duplicates}
    reasons = [
        (f"{stage}: {reason}", stage, n)
        for stage, counts in by_stage.items()
        for reason, n in counts.most_common()
        if n
    ]
    if reasons:
        frame = pd.DataFrame(reasons, columns=["name", "kind", "value"])
        frame = frame.assign(text=frame["value"].map(count), stderr=0.0)
        label = "Documents rejected per reason, with the figures beside the bars."
        chart = charts.bars(frame, STAGE_COLOURS, "documents rejected", "~s", label)
        blocks.append(
            Figure(
                chart,
                "Documents rejected, by stage and reason. The reasons of clean are its rules in params.yaml.",
            )
        )
    titles = ("read", "rejected by collect", "by clean", "by dedup", "kept", "share kept")
    blocks.append(
        Table(
            "From documents read to documents kept",
            [Column("source"), *map(Column, titles)],
            [fate.row(name) for name, fate in fates.items()],
            total.row("all"),
        )
    )
    detail = [
        [name, stage, reason, count(n)]
        for name, fate in fates.items()
        for stage, counts in (("collect", fate.collect), ("clean", fate.clean))
        for reason, n in counts.most_common()
        if n
    ]
    if detail:
        columns = [
            Column("source"),
            Column("stage", numeric=False),
            Column("reason", numeric=False),
            Column("documents"),
        ]
        note = Note(
            "Dedup compares the documents of all sources with each other; its reasons are counted over all of them."
        )
        blocks.append(Details("Reasons per source", [Table("Rejects by source and reason", columns, detail), note]))
    return Section("rejects", "What was left out", blocks)
