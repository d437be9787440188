"""The data card: what the training mixture is, in the fields of the Hugging Face Hub's dataset cards.

https://huggingface.co/docs/hub/datasets-cards. Every figure is one that a stage measured in this run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from huggingface_hub import DatasetCardData

from lib.params.sources import SourceBase
from lib.report.formats import count, estimate, percent, size
from lib.report.results import Results

# https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))  # fmt: skip


def card(results: Results, name: str, sources: Mapping[str, SourceBase]) -> str:
    """The card of the mixture that the model called `name` was trained on, as Markdown."""
    mixed = {
        source: metrics
        for source, metrics in results.metrics("mix")["sources"].items()
        if metrics["documents"]["train"]
    }
    cleaned = {source: results.metrics("clean", source) for source in mixed}
    languages = sum((Counter(metrics["languages"]) for metrics in cleaned.values()), Counter())
    spoken = sorted(code for code, number in languages.items() if number >= 0.01 * languages.total())
    licences = {mixed[source]["licence"] for source in mixed}
    documents = sum(metrics["documents"]["train"] for metrics in mixed.values())
    data = DatasetCardData(
        pretty_name=f"Training mixture of {name}",
        language=spoken or None,
        license=sorted({"other" if _own(licence) else licence.lower() for licence in licences}),
        size_categories=next((label for limit, label in _SIZES if documents < limit), "n>100M"),
        task_categories=["text-generation"],
        tags=["smelt"],
    )
    lines = [
        *("---", data.to_yaml(), "---", "", f"# Training mixture of {name}", ""),
        f"{count(documents)} documents (repeats counted) from {len(mixed)} sources, "
        f"{size(sum(metrics['bytes'] for metrics in mixed.values()))} of text.",
        *("", "## Sources", ""),
        *_table(
            ("source", "kind", "from", "licence", "share-alike", "documents seen", "share of tokens", "passes"),
            [
                (
                    source,
                    sources[source].kind,
                    sources[source].origin,
                    metrics["licence"],
                    "yes" if metrics["share_alike"] else "no",
                    count(metrics["documents"]["train"]),
                    percent(metrics["reached_share"]),
                    f"{metrics['epochs']:.2f}",
                )
                for source, metrics in mixed.items()
            ],
        ),
        *("", "## What was left out", ""),
        *_table(("stage", "documents in", "left out", "reasons"), list(_rejects(results, sources))),
        *("", "## Held out", ""),
        "Validation and test documents were drawn by a hash of their ids before mixing, and are never trained on: "
        f"{count(_held_out(mixed, 'val'))} and {count(_held_out(mixed, 'test'))} documents.",
        *("", "## Personal data", ""),
        *_personal(results, sources, mixed),
        *("", "## Known limits", ""),
        *(f"- {limit}" for limit in _limits(results, cleaned, languages)),
    ]
    return "\n".join([*lines, ""])


def _own(licence: str) -> bool:
    return licence.startswith("LicenseRef-") or " " in licence


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = "| {} |".format
    return [line(" | ".join(titles)), "|" + "---|" * len(titles), *(line(" | ".join(row)) for row in rows)]


def _rejects(results: Results, sources: Iterable[str]) -> Iterable[tuple[str, str, str, str]]:
    collect = [results.metrics("collect", name) for name in sources]
    clean = [results.metrics("clean", name) for name in sources]
    dedup = results.metrics("dedup")
    found = (
        ("collect", sum(m["documents"] + m["rejected"] for m in collect), [m["reasons"] for m in collect]),
        ("clean", sum(m["documents_in"] for m in clean), [m["reasons"] for m in clean]),
        ("dedup", dedup["documents_in"], [dedup["reasons"]]),
    )
    for stage, number, counters in found:
        reasons = sum(map(Counter, counters), Counter())
        why = ", ".join(f"{reason} {count(n)}" for reason, n in reasons.most_common() if n)
        yield stage, count(number), count(reasons.total()), why or "none"


def _held_out(mixed: Mapping[str, Mapping], split: str) -> int:
    return sum(metrics["documents"][split] for metrics in mixed.values())


def _personal(results: Results, sources: Mapping[str, SourceBase], mixed: Iterable[str]) -> Iterable[str]:
    for policy, said in (
        ("redact", "replaced by typed placeholders in"),
        ("drop", "a reason to leave the document out in"),
        ("keep", "not looked for in"),
    ):
        names = [source for source in mixed if sources[source].pii == policy]
        if names:
            yield f"- Personal data is {said}: {', '.join(names)}."
    types = results.metrics("pii")["held_out"]["types"]
    for group in ("patterned", "names"):
        if types[group]["labelled"]:
            recall, precision = (estimate(types[group][rate], as_percent=True) for rate in ("recall", "precision"))
            yield f"- Measured on labelled documents, {group}: recall {recall}, precision {precision}."


def _limits(results: Results, cleaned: Mapping[str, Mapping], languages: Mapping[str, int]) -> Iterable[str]:
    unjudged = [source for source, metrics in cleaned.items() if "language" not in metrics["steps"]]
    if unjudged:
        yield f"The language is not detected in: {', '.join(unjudged)}."
    if languages:
        most = Counter(languages).most_common(3)
        yield f"Where it is, the most frequent are {', '.join(f'{code} ({count(n)})' for code, n in most)}."
    sets = results.metrics("dedup")["decontamination"]
    short, items = (sum(row[key] for row in sets.values()) for key in ("too_short", "items"))
    yield (
        f"Of {count(items)} items of the evaluation sets {count(short)} are too short to be looked for in the "
        f"documents; other evaluation sets were not compared."
    )
    written = results.metrics("synthesize")
    if written["kept"]:
        yield (
            f"Fine-tuning may draw on {count(written['kept'])} conversations that a model wrote "
            f"({written['teacher']}); whether they say what their passage says was judged by words, numbers and names."
        )
    yield "Near duplicates are found by their words; translations and paraphrases stay."
    yield "No filter judges whether a text is true, fair or free of offence. Names that the search misses stay."
