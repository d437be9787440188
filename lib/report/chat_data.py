"""Section on the fine-tuning data: which conversations, how much of each group, and what was left out or cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from lib.report import charts
from lib.report.formats import compact, count, percent
from lib.report.page import Block, Column, Figure, Note, Section, Table
from lib.report.results import Results

TITLES = {"own": "own conversations", "instructions": "other instructions", "text": "plain text"}


def taught(results: Results) -> Section:
    """What the model learnt to answer from: shares asked for beside those reached, and what is not in it."""
    chat, finetune = results.metrics("chat"), results.metrics("finetune")
    read = finetune["data"]
    shares = [
        (title, kind, value)
        for name, title in TITLES.items()
        for kind, value in (
            ("requested", chat["groups"][name]["requested_share"]),
            ("reached", read["groups"].get(name, {"share": 0.0})["share"]),
        )
    ]
    label = "Requested and reached share of the fine-tuning tokens. The table below has the figures."
    chart = charts.paired_bars(
        pd.DataFrame(shares, columns=["name", "kind", "value"]),
        {"requested": "baseline", "reached": "chat"},
        "share of the fine-tuning tokens",
        "~%",
        label,
    )
    caption = (
        "Share of the fine-tuning tokens that params.yaml asks for, as estimated before a tokenizer is known, and the "
        "share reached in tokens of the base model."
    )
    blocks: list[Block] = [Figure(chart, caption), _groups(chat, read), _kinds(chat), Note(_fate(chat, read))]
    return Section("chat-data", "What it was taught", blocks)


def _groups(chat: dict[str, Any], read: dict[str, Any]) -> Table:
    rows = []
    for name, title in TITLES.items():
        group, reached = chat["groups"][name], read["groups"].get(name, {"share": 0.0, "tokens": 0, "learnt_tokens": 0})
        rows.append(
            [
                title,
                percent(group["requested_share"]),
                percent(reached["share"]),
                count(group["examples"]),
                f"{group['epochs']:.2f}",
                compact(group["available_tokens"]),
                compact(reached["tokens"]),
                compact(reached["learnt_tokens"]),
            ]
        )
    titles = ("requested", "reached", "examples", "passes", "tokens there are", "tokens", "tokens with loss")
    return Table("Fine-tuning data by group, one epoch of it", [Column("group"), *map(Column, titles)], rows)


def _kinds(chat: dict[str, Any]) -> Table:
    splits = chat["splits"]
    kinds = dict.fromkeys(kind for split in splits.values() for kind in split["usable"])
    rows = [[kind, *(count(split["usable"].get(kind, 0)) for split in splits.values())] for kind in kinds]
    total = ["all", *(count(sum(split["usable"].values())) for split in splits.values())]
    return Table("Conversations that there are", [Column("kind"), *map(Column, splits)], rows, total)


def _fate(chat: dict[str, Any], read: dict[str, Any]) -> str:
    left_out: Counter[str] = Counter()
    for split in chat["splits"].values():
        for reason, kinds in split["left_out"].items():
            left_out[reason] += sum(kinds.values())
    found = sum(split["found"] for split in chat["splits"].values())
    dropped = read["dropped"]
    return (
        f"Of {count(found)} conversations found, {count(left_out.total())} were left out{_reasons(left_out)}. Of the "
        f"{count(read['rows'])} rows to train on, {count(read['whole'])} were read whole and {count(read['cut'])} cut "
        f"to the model's context: conversations after an answer ({count(read['turns_cut'])} messages lost), texts into "
        f"pieces. {count(sum(dropped.values()))} were dropped{_reasons(dropped)}."
    )


def _reasons(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{reason} {count(number)}" for reason, number in sorted(counts.items()))
    return f" ({listed})" if listed else ""
