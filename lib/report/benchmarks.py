"""The section on public benchmarks: accuracy with its standard error beside what guessing reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lib.report import charts
from lib.report.evaluation import COLOURS, Estimate, figure, row
from lib.report.formats import NONE, SPACE, count, estimate
from lib.report.page import Block, Column, Figures, Note, Section, Table
from lib.report.results import MODELS, Results


class Benchmark(NamedTuple):
    title: str
    chance: float | None  # accuracy of guessing; None where nothing is chosen, or it is not known


KNOWN = {
    "mmlu_letter": Benchmark("MMLU, letters", 1 / 4),
    "mmlu_cloze": Benchmark("MMLU, cloze", 1 / 4),
    "piqa": Benchmark("PIQA", 1 / 2),
    "openbookqa": Benchmark("OpenBookQA", 1 / 4),
    "commonsenseqa": Benchmark("CommonsenseQA", 1 / 5),
    "socialiqa": Benchmark("SocialIQA", 1 / 3),
    "boolq": Benchmark("BoolQ", 2033 / 3270),  # always "yes", which is better than one of two
    "truthfulqa": Benchmark("TruthfulQA", None),
}
METRICS = {"accuracy": "", "accuracy_normalised": ", per character", "token_f1": ", token F1"}


def title_of(task: str) -> str:
    """Of a task's name; a task of the harness's own is called by that."""
    return KNOWN[task].title if task in KNOWN else task


def near_chance(accuracy: Estimate, chance: float) -> bool:
    """Whether an accuracy cannot be told from guessing: it lies within two standard errors, or its error is unknown."""
    return accuracy["stderr"] is None or abs(accuracy["value"] - chance) < 2 * accuracy["stderr"]


def verdict(tasks: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One sentence on what a model scored: in which tasks it is better than guessing. None if nothing was chosen."""
    scores = {
        title_of(task): (scores["accuracy"], KNOWN[task].chance)
        for task, scores in tasks.items()
        if "accuracy" in scores and task in KNOWN and KNOWN[task].chance is not None
    }
    if not scores:
        return None
    better = [
        f"{title} {estimate(score, as_percent=True)} ({chance:.0%})"
        for title, (score, chance) in scores.items()
        if not near_chance(score, chance) and score["value"] > chance
    ]
    named = f"better than guessing in {', '.join(better)}" if better else "in none better than guessing"
    return f"Of {len(scores)} public benchmarks with given choices it is {named}."


def benchmarks(results: Results) -> Section:
    """Every task of evaluate.tasks, for base, chat and reference."""
    measured = {model: results.metrics("evaluate", model)["tasks"] for model in MODELS}
    points, rows = [], []
    for task, scores in measured["chat"].items():
        title, chance = KNOWN.get(task, Benchmark(task, None))
        for metric in (key for key in scores if key != "questions"):
            name = title + METRICS.get(metric, f", {metric}")
            level = chance if metric.startswith("accuracy") else None
            cells = [_accuracy(measured[model][task][metric], level) for model in MODELS]
            rows.append([name, *cells, NONE if level is None else f"{level:.0%}", count(scores["questions"])])
        if "accuracy" in scores:
            points += [row(title, model, measured[model][task]["accuracy"], chance) for model in MODELS]
    if not rows:
        return Section("benchmarks", "Public benchmarks", [Note("None: evaluate.tasks is empty in params.yaml.")])
    chart = figure(
        charts.points, points, COLOURS, ("accuracy", "~%"),
        "Accuracy of each model on public benchmarks beside the level of chance; the figures are in the table below.",
        "Public questions with given choices; the tick is what guessing reaches.",
    )  # fmt: skip
    columns = [Column("measure"), *map(Column, MODELS), Column("chance"), Column("questions")]
    blocks: list[Block] = [
        Figures(chart),
        Table("Scores by lm-eval", columns, rows),
        Note(
            "± is one standard error. ≈: within two of them of guessing, so no skill was shown. Per character: the "
            "choice with the highest log likelihood per character, so that long ones are not at a disadvantage. In "
            "letters, MMLU shows the choices and scores A to D; as a cloze it scores their texts, which small models "
            "learn first. BoolQ's chance is that of always saying yes. TruthfulQA: the answer's words against the "
            "nearest right one."
        ),
    ]
    return Section("benchmarks", "Public benchmarks", blocks)


def _accuracy(score: Estimate, chance: float | None) -> str:
    shown = estimate(score, as_percent=True)
    return shown + (f"{SPACE}≈" if chance is not None and near_chance(score, chance) else "")
