"""The section on quality: every measure with its standard error, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from lib.report import charts
from lib.report.formats import NONE, count, decimal, estimate
from lib.report.page import Block, Column, Figure, Figures, Note, Section, Table
from lib.report.results import MODELS, Results

Estimate = Mapping[str, float | None]  # value and stderr; None: not measured, or unknown

COLOURS = {"base": "base", "chat": "chat", "reference": "reference"}
BASELINES = {
    "unigram": "unigram_bits_per_byte",
    "gzip": "gzip_bits_per_byte",
    "zstd": "zstd_bits_per_byte",
}
COMMANDS = {
    "service": "service right",
    "valid": "command valid",
    "exact_match": "command exact",
    "token_f1": "token F1",
}
RETRIEVAL = {"recall_at_1": "recall@1", "recall_at_5": "recall@5", "recall_at_10": "recall@10", "mrr": "MRR"}
INSTRUCTIONS = {"own": "our prompts of IFEval's kinds", "ifbench": "IFBench"}


def below(value: float | None, baseline: float | None) -> str:
    """How far `value` lies below (or above) a baseline, as a share of it."""
    if value is None or baseline is None:
        return NONE
    return f"{abs(1 - value / baseline):.1%} {'below' if value <= baseline else 'above'}"


def quality(results: Results, reference: str) -> Section:
    """Bits per byte, commands and instructions of base, chat and reference. `reference` is that model's name."""
    measured = {model: results.metrics("evaluate", model) for model in MODELS}
    note = (
        f"The reference is {reference}. ± is one standard error. Fewer bits per byte are better; of all else, more is."
    )
    blocks = [
        Note(note),
        *_bits_per_byte(measured, results.metrics("encode")["baselines"]),
        *_commands(measured),
        *_instructions(measured),
    ]
    return Section("evaluation", "How good it is", blocks)


def _bits_per_byte(measured: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[Block]:
    overall = {model: measured[model]["bits_per_byte"]["overall"] for model in MODELS}
    by_source = {model: measured[model]["bits_per_byte"]["sources"] for model in MODELS}
    sources = list(by_source["base"])

    bars = [row(model, model, score) | {"text": estimate(score)} for model, score in overall.items()]
    for name, key in BASELINES.items():
        score = {"value": baselines[key], "stderr": None}
        bars.append(row(name, "baseline", score) | {"text": decimal(baselines[key])})
    compared = figure(
        charts.bars,
        bars,
        COLOURS | {"baseline": "baseline"},
        ("bits per byte", "~g"),
        "Bits per byte on held-out text: " + "; ".join(f"{bar['name']} {bar['text']}" for bar in bars) + ".",
        "Held-out text of all sources. What a model has to beat: unigram knows which tokens are frequent and no order; "
        "gzip and zstd learn from the text itself alone.",
    )
    apart = figure(
        charts.points,
        [row(source, model, by_source[model][source]) for source in sources for model in MODELS],
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


def _commands(measured: Mapping[str, Any]) -> list[Block]:
    commands = {title: {model: measured[model]["commands"][key] for model in MODELS} for key, title in COMMANDS.items()}
    examples = count(measured["chat"]["commands"]["examples"])
    chart = figure(
        charts.points,
        [row(title, model, score) for title, scores in commands.items() for model, score in scores.items()],
        COLOURS,
        ("share", "~%"),
        "Service right, command valid, command exact and token F1 of each model; the figures are in the table below.",
        f"Commands for {examples} tasks of the manual that were held out.",
    )
    rows = [[title, *(estimate(one, as_percent=True) for one in scores.values())] for title, scores in commands.items()]
    note = (
        "Valid: it parses, and the manual knows the command and, for its service, the options. Decoded greedily; as "
        "right counts what the manual says, to the letter (exact) or word by word (F1)."
    )
    return [
        Figures(chart),
        Table(f"Commands for {examples} held-out tasks", [Column("measure"), *map(Column, MODELS)], rows),
        Note(note),
        *_retrieval(measured),
    ]


def _retrieval(measured: Mapping[str, Any]) -> list[Block]:
    """What the index finds, and the same measures on the tasks whose page is in it, without passages and with them."""
    blocks: list[Block] = []
    modes = measured["chat"]["retrieval"]
    if questions := max((found["questions"] for found in modes.values()), default=0):
        rows = [[mode, *(estimate(found[key], as_percent=True) for key in RETRIEVAL)] for mode, found in modes.items()]
        caption = f"Whether the index finds the document of {count(questions)} held-out questions"
        blocks += [
            Table(caption, [Column("search by"), *map(Column, RETRIEVAL.values())], rows),
            Note(
                "Recall: a passage of the right document is among the first so many. MRR: the mean of 1 / the rank of "
                "the first such passage. Vector: by meaning; keyword: by words (BM25); hybrid: both, their ranks fused."
            ),
        ]
    examples = measured["chat"]["commands_alone"]["examples"]
    if not examples:
        return blocks
    ways = {"alone": lambda of: of["commands_alone"]}
    ways |= {f"with passages ({mode})": lambda of, mode=mode: of["commands_with_passages"][mode] for mode in modes}
    rows = [
        [f"{model}, {way}", *(estimate(scores(measured[model])[key], as_percent=True) for key in COMMANDS),
         count(scores(measured[model])["page_found"]) if way != "alone" else NONE]
        for model in MODELS
        for way, scores in ways.items()
    ]  # fmt: skip
    columns = [Column("model"), *map(Column, COMMANDS.values()), Column("page in the prompt")]
    return [
        *blocks,
        Table(f"{examples} held-out tasks whose page is in the index", columns, rows),
        Note(
            f"Page in the prompt: how many of the {examples} prompts held a passage of the right page. What a model "
            "reads at once limits how many passages fit."
        ),
    ]


def _instructions(measured: Mapping[str, Any]) -> list[Block]:
    rows = []
    for key, title in INSTRUCTIONS.items():
        found = {model: measured[model]["instructions"][key] for model in MODELS}
        prompts = found["chat"]["prompts"]
        for unit in ("prompt", "instruction"):
            for kind in ("strict", "loose"):
                scores = [estimate(found[model][f"{unit}_{kind}"], as_percent=True) for model in MODELS]
                rows += [[f"{title}: {unit}s, {kind}", *scores, count(prompts)]] if prompts else []
    if not rows:
        return []
    caption = "Instructions followed, as programs check them"
    note = (
        "Of prompts: all instructions of a prompt; loose forgives a first or last line too many, and asterisks. "
        "Answers are cut off at evaluate.instructions.max_new_tokens, which is too short for about half of IFBench."
    )
    return [Table(caption, [Column("measure"), *map(Column, MODELS), Column("prompts")], rows), Note(note)]


def row(name: str, kind: str, score: Estimate, chance: float | None = None) -> dict[str, Any]:
    return {"name": name, "kind": kind, **score, "chance": chance}


def figure(
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
