"""The top of the page: which model this is, and whether it is any good, in figures that the sections below explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.params.training import Finetune
from lib.report.benchmarks import verdict
from lib.report.cost import UNREADABLE, total_energy
from lib.report.evaluation import below
from lib.report.formats import compact, count, decimal, duration, energy, estimate, percent, size
from lib.report.page import Fact, Summary
from lib.report.results import MODELS, Results

METHODS = {"lora": "with LoRA", "qlora": "with QLoRA", "full": "in all its weights"}


def summary(
    results: Results, name: str, reference: str, runs: Sequence[Mapping[str, Any]], settings: Finetune
) -> Summary:
    """The model called `name`, measured against `reference`.

    Args:
        runs: the run records of all stages.
        settings: of fine-tuning.
    """
    pretrain, finetune, encoded = (results.metrics(stage) for stage in ("decay", "finetune", "encode"))
    base, chat, other = (results.metrics("evaluate", model) for model in MODELS)
    bits = base["bits_per_byte"]["overall"]
    below_unigram = below(bits["value"], encoded["baselines"]["unigram_bits_per_byte"])
    service, exact = chat["commands"]["service"], chat["commands"]["exact_match"]
    smallest, file = min(results.metrics("export", "gguf")["files"].items(), key=lambda entry: entry[1]["bytes"])
    trained_on = sum(source["train_tokens"] > 0 for source in encoded["sources"].values())

    verdicts = []
    if bits["value"] is not None:
        verdicts.append(
            f"Held-out text costs the base model {estimate(bits)} bits per byte: {below_unigram} a unigram model and "
            f"{below(bits['value'], other['bits_per_byte']['overall']['value'])} {reference}."
        )
    if service["value"] is not None:
        before = base["commands"]
        verdicts.append(
            f"Of {count(chat['commands']['examples'])} held-out tasks it names the right service in "
            f"{estimate(service, as_percent=True)} and gives the exact command in {estimate(exact, as_percent=True)}; "
            f"before fine-tuning it was {percent(before['service']['value'])} and "
            f"{percent(before['exact_match']['value'])}."
        )
    if (public := verdict(chat["tasks"])) is not None:
        verdicts.append(public)

    joules = total_energy(runs)
    seen = pretrain if settings.base == "models/base" else finetune
    return Summary(
        title=name,
        what=(
            f"{_origin(settings.base, pretrain, trained_on)}, then taught to answer {METHODS[settings.method]} on "
            f"{count(finetune['examples'])} conversations."
        ),
        verdicts=verdicts,
        facts=[
            Fact("parameters", compact(finetune["parameters"]), f"{size(file['bytes'])} as {smallest}"),
            Fact("tokens seen", compact(seen["tokens"]), f"in {count(seen['steps'])} steps"),
            Fact("bits per byte", decimal(bits["value"]), f"{below_unigram} unigram"),
            Fact("right service", percent(service["value"]), f"{percent(exact['value'])} exact commands"),
            Fact("time", duration(sum(run["seconds"] for run in runs)), "all stages"),
            Fact("energy", energy(joules), UNREADABLE if joules is None else "processors, all stages"),
        ],
    )


def _origin(base: str, pretrain: Mapping[str, Any], sources: int) -> str:
    if base != "models/base":
        return f"The model in {base}, which others trained"
    return (
        f"A language model of {compact(pretrain['parameters'])} parameters, trained from scratch on "
        f"{compact(pretrain['tokens'])} tokens of {sources} source{'s' if sources != 1 else ''}"
    )
