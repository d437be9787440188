"""Section on preference tuning: the pairs, and how the model came to prefer the better answers."""

from __future__ import annotations

import pandas as pd

from lib.report import charts
from lib.report.formats import count, short_hash
from lib.report.page import Block, Column, Figure, Figures, Note, Section, Table
from lib.report.results import Results

_FROM = {
    "files": "the files of data/pairs",
    "answers": "the right answers to training tasks and the model's own wrong ones",
    "judge": "the model's answers to training tasks, of two each the one first that the judge preferred",
}


def preferences(results: Results) -> Section:
    """Where the pairs are from, what was rejected, and by step how often and by how much the chosen answers win."""
    pairs, tuned = results.metrics("preferences"), results.metrics("prefer")
    blocks: list[Block] = []
    if not tuned["pairs"]:
        blocks.append(Note("Off (preferences.from): the chat model is the fine-tuned one as it is."))
    else:
        val = results.curve("prefer", "val")
        last = val.iloc[-1]
        accuracy = (
            f"Of pairs held out, the chosen answer had the higher reward in {val['accuracy'].iloc[0]:.0%} at step "
            f"{count(int(val['step'].iloc[0]))} and in {last.accuracy:.0%} at the end."
        )
        margin = (
            f"Rewards of the chosen and the rejected answer, in nats times beta; at the end they differ by "
            f"{last.margin:.3f}."
        )
        rewards = {"chosen": "chat", "rejected": "base", "margin": "reference"}
        blocks = [
            Figures(
                [
                    Figure(charts.lines(val, {"accuracy": "chat"}, "pairs decided rightly", ".0%", accuracy), accuracy),
                    Figure(charts.lines(val, rewards, "reward", ".2f", margin), margin),
                ]
            ),
            _table(val),
        ]
    if pairs["from"]:
        rejected = ", ".join(f"{reason.replace('_', ' ')} {number:,}" for reason, number in pairs["rejected"].items())
        blocks.append(
            Note(
                f"{pairs['rows']:,} rows from {_FROM[pairs['from']]}: {pairs['train']:,} pairs to train on, "
                f"{pairs['val']:,} held out; rejected: {rejected or 'none'}."
            )
        )
    if judge := pairs.get("judge"):
        right = judge["accuracy"]
        blocks.append(
            Note(
                f"The judge is {short_hash(judge['identity'])}. Of two answers to a training question of which the "
                f"better one is known, it preferred that one in {right['value']:.0%} ({right['low']:.0%} "
                f"to {right['high']:.0%})."
            )
        )
    return Section("preferences", "What it learnt to prefer", blocks)


def _table(val: pd.DataFrame) -> Table:
    columns = ("loss", "accuracy", "margin", "chosen", "rejected")
    return Table(
        "Preference tuning on pairs held out",
        [*map(Column, ("step", *columns))],
        [[count(int(row.step)), *(f"{getattr(row, name):.3f}" for name in columns)] for row in val.itertuples()],
    )
