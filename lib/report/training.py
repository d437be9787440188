"""Section on training: the two loss curves and where they ended."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lib.report import charts
from lib.report.formats import NONE, compact, count
from lib.report.page import Block, Column, Details, Excerpt, Figure, Figures, Note, Section, Table
from lib.report.results import Results

# Title -> the stages whose curves are one after the other.
PARTS = {"Pretraining": ("pretrain", "decay"), "Fine-tuning": ("finetune",)}


def curves(results: Results) -> Section:
    """Training and validation loss of pretraining and fine-tuning, in nats per token."""
    figures, details, rows = [], [], []
    for title, stages in PARTS.items():
        train, val = (_joined(results, stages, name) for name in ("train", "val"))
        metrics = results.metrics(stages[-1])
        first, last = train["loss"].iloc[0], train["loss"].iloc[-1]
        best = val["loss"].min()
        label = (
            f"{title}: training loss fell from {first:.3f} to {last:.3f} nats per token in {metrics['steps']:,} steps; "
            f"validation loss was {best:.3f} at best."
        )
        figures.append(Figure(charts.loss(train, val, label), label))
        rows.append(
            [
                title,
                count(metrics["steps"]),
                compact(metrics["tokens"]),
                f"{first:.3f}",
                f"{last:.3f}",
                f"{metrics['val_loss']:.3f}",
                f"{best:.3f}",
            ]
        )
        details.append(_validations(title, train, val))
    titles = ("steps", "tokens", "first loss", "final loss", "final val. loss", "best val. loss")
    table = Table("Training, losses in nats per token", [Column("stage"), *map(Column, titles)], rows)
    blocks = [Figures(figures), table, Note(_trouble(results)), Details("Every validation", details)]
    written = _written(results)
    if written:
        blocks.append(Details("What it wrote on the way", written))
    return Section("training", "How it learnt", blocks)


def _trouble(results: Results) -> str:
    """What the guards did, over all stages."""
    guards = [results.metrics(stage)["guards"] for stages in PARTS.values() for stage in stages]
    counts = {name: sum(guard[name] for guard in guards) for name in ("not_finite", "spikes", "roll_backs")}
    # The decay goes on counting where the stable run ended.
    counts = {name: count - guards[0][name] for name, count in counts.items()}
    if not counts["not_finite"] and not counts["spikes"]:
        return "No step was left out."
    return (
        f"Steps left out: {counts['not_finite']} because loss or gradient were not finite, {counts['spikes']} because "
        f"they stood out; rolled back {counts['roll_backs']} times."
    )


def _written(results: Results) -> list[Block]:
    """How the model continued fixed prompts and answered fixed questions, step by step, and a judge's mean grade."""
    blocks: list[Block] = []
    for stages in PARTS.values():
        samples = []
        for stage in stages:
            graded = results.json(f"reports/{stage}/run.json").get("sample_grades", {})
            for sample in results.json(f"reports/{stage}/samples.json"):
                grade = graded.get(str(sample["step"]))
                mark = "" if grade is None else f", all samples of it graded {grade:.2f} of 5"
                samples.append((sample["prompt"], f"step {sample['step']}{mark}", sample["text"]))
        for prompt in dict.fromkeys(prompt for prompt, *_ in samples):
            blocks.append(Excerpt(prompt, [(step, text) for asked, step, text in samples if asked == prompt]))
    return blocks


def _joined(results: Results, stages: Sequence[str], name: str) -> pd.DataFrame:
    """The curves of stages that go on from each other, as one."""
    curves = pd.concat([results.curve(stage, name) for stage in stages], ignore_index=True)
    return curves.drop_duplicates("step", ignore_index=True)


def _validations(title: str, train: pd.DataFrame, val: pd.DataFrame) -> Table:
    """The validation losses, each beside the training loss last logged before it."""
    joined = pd.merge_asof(val, train[["step", "loss"]], on="step", suffixes=("", "_train"))
    return Table(
        title,
        [*map(Column, ("step", "tokens", "training loss", "validation loss", "bits per byte"))],
        [
            [
                count(int(row.step)),
                compact(row.tokens),
                f"{row.loss_train:.3f}" if pd.notna(row.loss_train) else NONE,
                f"{row.loss:.3f}",
                f"{row.bits_per_byte:.3f}" if "bits_per_byte" in joined else NONE,
            ]
            for row in joined.itertuples()
        ],
    )
