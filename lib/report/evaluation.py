"""Sections on quality: every measure with its standard error, beside what it has to beat, and the answers in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from lib.report import charts
from lib.report.formats import NONE, SPACE, count, decimal, estimate
from lib.report.page import Block, Column, Figure, Figures, Note, Sample, Section, Table
from lib.report.results import MODELS, Results

Estimate = Mapping[str, float | None]  # value and stderr; None: not measured, or unknown

COLOURS = {"base": "base", "chat": "chat", "reference": "reference"}
BASELINES = {
    "unigram": "unigram_bits_per_byte",
    "gzip": "gzip_bits_per_byte",
    "zstd": "zstd_bits_per_byte",
}
COMMANDS = {"service": "service right", "exact_match": "command exact", "token_f1": "token F1"}
TASKS = {"piqa": ("PIQA", 1 / 2), "openbookqa": ("OpenBookQA", 1 / 4)}  # chance: one of two, one of four choices


def below(value: float | None, baseline: float | None) -> str:
    """How far `value` lies below (or above) a baseline, as a share of it."""
    if value is None or baseline is None:
        return NONE
    return f"{abs(1 - value / baseline):.1%} {'below' if value <= baseline else 'above'}"


def near_chance(accuracy: Estimate, chance: float) -> bool:
    """Whether an accuracy cannot be told from guessing: it lies within two standard errors, or its error is unknown."""
    return accuracy["stderr"] is None or abs(accuracy["value"] - chance) < 2 * accuracy["stderr"]


def quality(results: Results, reference: str) -> Section:
    """Bits per byte, commands and public questions of base, chat and reference. `reference` is that model's name."""
    measured = {model: results.metrics("evaluate", model) for model in MODELS}
    note = (
        f"The reference is {reference}. ± is one standard error. Fewer bits per byte are better; of all else, more is."
    )
    blocks = [
        Note(note),
        *_bits_per_byte(measured, results.metrics("encode")["baselines"]),
        *_scores(measured),
        Note(
            "≈: within two standard errors of guessing, so no skill was shown. Per character: the choice with the "
            "highest log likelihood per character, so that long ones are not at a disadvantage."
        ),
    ]
    return Section("evaluation", "How good it is", blocks)


def _bits_per_byte(measured: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[Block]:
    overall = {model: measured[model]["bits_per_byte"]["overall"] for model in MODELS}
    by_source = {model: measured[model]["bits_per_byte"]["sources"] for model in MODELS}
    sources = list(by_source["base"])

    bars = [_row(model, model, score) | {"text": estimate(score)} for model, score in overall.items()]
    for name, key in BASELINES.items():
        score = {"value": baselines[key], "stderr": None}
        bars.append(_row(name, "baseline", score) | {"text": decimal(baselines[key])})
    compared = _figure(
        charts.bars,
        bars,
        COLOURS | {"baseline": "baseline"},
        ("bits per byte", "~g"),
        "Bits per byte on held-out text: " + "; ".join(f"{bar['name']} {bar['text']}" for bar in bars) + ".",
        "Held-out text of all sources. What a model has to beat: unigram knows which tokens are frequent and no order; "
        "gzip and zstd learn from the text itself alone.",
    )
    apart = _figure(
        charts.points,
        [_row(source, model, by_source[model][source]) for source in sources for model in MODELS],
        COLOURS,
        ("bits per byte", "~g"),
        "Bits per byte of each model on the held-out text of each source; the figures are in the table below.",
        "The same, source by source.",
    )
    rows = [["all sources", *(estimate(overall[model]) for model in MODELS)]]
    rows += [[source, *(estimate(by_source[model][source]) for model in MODELS)] for source in sources]
    for name, key in BASELINES.items():
        differences = [below(overall[model]["value"], baselines[key]) for model in MODELS]
        rows.append([f"all, against {name} ({decimal(baselines[key])})", *differences])
    caption = f"Bits per byte of {count(baselines['bytes'])} held-out bytes, {count(baselines['documents'])} documents"
    return [Figures([*compared, *apart]), Table(caption, [Column("text"), *map(Column, MODELS)], rows)]


def _scores(measured: Mapping[str, Any]) -> list[Block]:
    columns = [Column("measure"), *map(Column, MODELS)]
    commands = {title: {model: measured[model]["commands"][key] for model in MODELS} for key, title in COMMANDS.items()}
    examples = count(measured["chat"]["commands"]["examples"])
    command_rows = [
        [title, *(estimate(score, as_percent=True) for score in scores.values())] for title, scores in commands.items()
    ]
    command_chart = _figure(
        charts.points,
        [_row(title, model, score) for title, scores in commands.items() for model, score in scores.items()],
        COLOURS,
        ("share", "~%"),
        "Service right, command exact and token F1 of each model; the figures are in the table below.",
        f"Commands for {examples} tasks of the manual that were held out.",
    )
    question_points, question_rows = [], []
    for task, (title, chance) in TASKS.items():
        results = {model: measured[model]["tasks"][task] for model in MODELS}
        questions = count(results["chat"]["questions"])
        for key, name in (("accuracy", title), ("accuracy_normalised", f"{title}, per character")):
            cells = [_accuracy(result[key], chance) for result in results.values()]
            question_rows.append([name, *cells, f"{chance:.0%}", questions])
        question_points += [_row(title, model, result["accuracy"], chance) for model, result in results.items()]
    question_chart = _figure(
        charts.points,
        question_points,
        COLOURS,
        ("accuracy", "~%"),
        "Accuracy of each model on PIQA and OpenBookQA beside the level of chance; the figures are in the table below.",
        "Public questions with given choices; the tick is what guessing reaches.",
    )
    return [
        Figures([*command_chart, *question_chart]),
        Table(f"Commands for {examples} held-out tasks, decoded greedily", columns, command_rows),
        Table("Accuracy by lm-eval", [*columns, Column("chance"), Column("questions")], question_rows),
    ]


def _accuracy(score: Estimate, chance: float) -> str:
    return estimate(score, as_percent=True) + (f"{SPACE}≈" if near_chance(score, chance) else "")


def _row(name: str, kind: str, score: Estimate, chance: float | None = None) -> dict[str, Any]:
    return {"name": name, "kind": kind, **score, "chance": chance}


def _figure(
    draw: Callable[..., str],
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    axis: tuple[str, str],
    label: str,
    caption: str,
) -> list[Figure]:
    """The chart of what was measured; none if nothing was (an empty test split)."""
    numbers = {"value": float, "stderr": float, "chance": float}
    frame = pd.DataFrame(rows).astype(numbers).dropna(subset="value") if rows else pd.DataFrame()
    return [] if frame.empty else [Figure(draw(frame, colours, *axis, label), caption)]


def answers(results: Results) -> Section:
    """What the three models said to the same prompts, beside the expected answer."""
    said = {model: {sample["prompt"]: sample for sample in results.samples(model)} for model in MODELS}
    prompts = list(dict.fromkeys(prompt for samples in said.values() for prompt in samples))
    blocks: list[Block] = [
        Sample(
            prompt,
            next(samples[prompt]["expected"] for samples in said.values() if prompt in samples),
            [(model, samples[prompt]["answer"] if prompt in samples else NONE) for model, samples in said.items()],
        )
        for prompt in prompts
    ]
    if not blocks:
        blocks = [Note("No samples: evaluate.samples is 0 in params.yaml.")]
    return Section("samples", "What it says", blocks)
