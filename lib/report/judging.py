"""Sections on the judge, whose own measurement stands before its verdicts, and on what training holds of the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.report.formats import NONE, SPACE, count, decimal, estimate, short_hash
from lib.report.page import Block, Column, Details, Note, Sample, Section, Table
from lib.report.results import Results

MODELS = ("chat", "reference")
_CONTROL = {
    "all": "any worse answer",
    "near_miss": "a near miss",
    "shuffled": "another question's answer",
    "truncated": "the answer cut in half",
}
_KINDS = {"all": "all questions", "commands": "tasks of the manual", "subjects": "articles"}
_TO_SHOW = {"grades": "Grades", "pairs": "Preferences"}


def judged(results: Results, min_accuracy: float) -> Section:
    """The judge's measurement on known answers, its verdicts on the models, and whether they may be believed."""
    measured = results.metrics("judge")
    control, verdicts = measured["control"], measured["verdicts"]
    blocks: list[Block] = [
        Note(
            f"The judge is {short_hash(measured['judge'])}. Grades go from 1 to 5; of two answers it picks the better "
            f"one, asked in both orders. It was measured first, with the same prompts, on "
            f"{count(control['questions'])} questions with known answers."
        )
    ]
    for what, title in _TO_SHOW.items():
        if not control[what]["reliable"]:
            blocks.append(
                Note(
                    f"{title} are not reliable: on known answers {_interval(control[what]['accuracy']['all'], True)} "
                    f"were right, and the lower end has to reach {min_accuracy:.0%}. Do not take what follows for "
                    f"quality.",
                    warning=True,
                )
            )
    if measured["stopped"]:
        blocks.append(Note(f"The budget ended it early: {measured['stopped']}.", warning=True))
    if measured["rejected"]:
        reasons = ", ".join(f"{reason} {count(number)}" for reason, number in measured["rejected"].items())
        blocks.append(Note(f"Answers of the judge that were of no use: {reasons}."))
    blocks += [_control(control), _verdicts(verdicts, control)]
    samples = [_sample(sample) for sample in results.json("reports/judge/samples.json")]
    if samples:
        blocks.append(Details("Answers and their grades", samples))
    return Section("judge", "What a judge says", blocks)


def _interval(measured: Mapping[str, float | None] | None, as_percent: bool) -> str:
    """A figure and its 95% interval: `81.2% (70.1 to 88.9)`."""
    if measured is None or measured["value"] is None:
        return NONE
    scale, digits, unit = (100, 1, "%") if as_percent else (1, 2, "")
    value, low, high = (scale * measured[name] for name in ("value", "low", "high"))
    return f"{value:z.{digits}f}{unit}{SPACE}({low:z.{digits}f}{SPACE}to{SPACE}{high:z.{digits}f})"


def _control(control: Mapping[str, Any]) -> Table:
    grades, pairs = control["grades"], control["pairs"]
    rows = [
        [
            f"gold is found better than {title}",
            _interval(grades["accuracy"][name], True),
            _interval(pairs["accuracy"][name], True),
        ]
        for name, title in _CONTROL.items()
    ]
    rows += [
        ["order: the first is picked above one half", NONE, _interval(pairs["order_bias"], True)],
        ["length: accuracy where gold is longer, less where it is shorter"]
        + [_interval(one["length_bias"], True) for one in (grades, pairs)],
        ["both orders pick the same", NONE, _interval(pairs["orders_agree"], True)],
        ["grades and preferences agree", _interval(control["agreement"], True), NONE],
        ["reliable", *("yes" if one["reliable"] else "no" for one in (grades, pairs))],
    ]
    return Table(
        "The judge on known answers; in brackets the 95% interval",
        [Column("measure"), Column("grades"), Column("preferences")],
        rows,
    )


def _verdicts(verdicts: Mapping[str, Any], control: Mapping[str, Any]) -> Table:
    doubt = {what: "" if control[what]["reliable"] else ", not reliable" for what in _TO_SHOW}
    rows = [
        [
            _KINDS.get(kind, kind),
            count(row["questions"]),
            *(estimate(row["grade"][model]) for model in MODELS),
            estimate(row["grade_difference"]),
            estimate(row["preferred"], as_percent=True),
        ]
        for kind, row in verdicts.items()
    ]
    columns = [
        Column("questions of"),
        Column("number"),
        *(Column(f"grade of {model}{doubt['grades']}") for model in MODELS),
        Column(f"difference{doubt['grades']}"),
        Column(f"chat preferred{doubt['pairs']}"),
    ]
    return Table("Verdicts on held-out questions; ± is one standard error, of the paired difference", columns, rows)


def _sample(sample: Mapping[str, Any]) -> Sample:
    better = {1.0: "chat preferred", 0.0: "reference preferred", 0.5: "a draw", None: "no preference"}
    return Sample(
        f"{sample['prompt']} ({better[sample['preference']]})",
        sample["expected"],
        [(f"{model}, grade {decimal(sample['grades'][model])}", answer) for model, answer in sample["answers"].items()],
    )


def contamination(results: Results) -> Section:
    """Items of evaluation sets and held-out tasks in what was trained on."""
    measured = results.metrics("contamination")["words"]
    longest = max((name for name in measured if name != "whole"), key=int, default="whole")
    leaked = sum(figures["found"] for figures in measured[longest].values())
    verdict = f"{count(leaked)} items were found, and scores on them may be luck." if leaked else "no item was found."
    how = f"runs of {longest} words, or as a whole where they are shorter" if longest != "whole" else "whole items"
    blocks: list[Block] = [
        Note(
            f"Searched for in the documents and conversations that were trained on, after decontamination, by {how}: "
            f"{verdict} Shorter runs miss less, and also find phrases that say nothing. Of held-out tasks, whole "
            f"questions and whole answers count.",
            warning=bool(leaked),
        )
    ]
    titles = ("items", "searched for", "found in documents", "found in conversations")
    for name, sets in measured.items():
        rows = [
            [of_set, *(count(row[key]) for key in ("items", "searched", "documents", "conversations"))]
            for of_set, row in sets.items()
        ]
        what = "Held-out tasks as a whole" if name == "whole" else f"Items by runs of {name} words"
        blocks.append(Table(f"{what}, in what was trained on", [Column("set"), *map(Column, titles)], rows))
    found = results.json("reports/contamination/found.json")[longest]
    if found:
        columns = [Column("item"), *(Column(title, numeric=False) for title in ("in", "shared words"))]
        blocks.append(Table("The first findings", columns, [[one["item"], one["text"], one["words"]] for one in found]))
    return Section("contamination", "Evaluation items in what was trained on", blocks)
