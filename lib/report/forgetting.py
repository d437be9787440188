"""The section on what fine-tuning cost: chat beside base on general text and a benchmark, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.evals.items import Item, mean_score, paired_difference
from lib.params.results import Forgetting
from lib.report.benchmarks import METRICS, title_of
from lib.report.formats import count, decimal, estimate, percent
from lib.report.page import Column, Note, Section, Table
from lib.report.results import Results

_WIDTH = 1.96  # standard errors to each side: 95%
_LEAST = 10  # items for that: of three documents, the normal distribution promises too much
Scores = Mapping[Any, Item]


def forgetting(results: Results, settings: Forgetting) -> Section:
    """Bits per byte of `settings.sources`, together and apart, and the accuracy of `settings.task`."""
    base, chat = results.items("base"), results.items("chat")
    texts = [f"bits_per_byte/{source}" for source in settings.sources]
    rows = []
    if together := [text for text in texts if text in base and text in chat]:
        whole = [
            {(text, name): item for text in together for name, item in scores[text].items()} for scores in (base, chat)
        ]
        rows.append(_row("general text, bits per byte", *whole))
        rows += [_row(f"{text.partition('/')[2]}, bits per byte", base[text], chat[text]) for text in together]
    for metric in METRICS:
        key = f"{settings.task}/{metric}"
        if key in base and key in chat:
            rows.append(_row(f"{title_of(settings.task)}{METRICS[metric] or ', accuracy'}", base[key], chat[key], True))
    if not rows:
        return Section("forgetting", "What fine-tuning cost", [Note("Nothing measured: see evaluate.forgetting.")])
    columns = [Column(name) for name in ("measure", "before", "after", "difference", "95% interval", "items")]
    note = (
        "Before is the base model, after the chat model, on the same items; the difference's interval is of the pairs. "
        "More bits per byte are worse, more accuracy is better. An interval that holds 0 shows neither loss nor gain."
    )
    return Section(
        "forgetting", "What fine-tuning cost", [Table("General skill before and after", columns, rows), Note(note)]
    )


def _row(name: str, before: Scores, after: Scores, as_percent: bool = False) -> Sequence[str]:
    difference, shared = paired_difference(before, after)
    shown = percent if as_percent else decimal
    interval = "too few items"
    if difference.value is not None and difference.stderr is not None and shared >= _LEAST:
        ends = (difference.value + sign * _WIDTH * difference.stderr for sign in (-1, 1))
        interval = " to ".join(_signed(shown(end)) for end in ends)
    means = (estimate(mean_score(scores.values()).as_metric(), as_percent=as_percent) for scores in (before, after))
    return [name, *means, _signed(shown(difference.value)), interval, count(shared)]


def _signed(number: str) -> str:
    return number if number.startswith("-") or not number[0].isdigit() else f"+{number}"
