"""Section on lineage: which documents, licences, code, parameters and packages made the model, down to the hashes."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lib.params.sources import SourceBase
from lib.report.formats import NONE, count, percent
from lib.report.page import Column, Details, Section, Table
from lib.report.results import Results


def origin(root: Path) -> list[list[str]]:
    """The git commit of `root` and what differs from it, dvc.lock and reports/ aside: a run itself writes those."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return [["commit", "no git commit here"]]
    changed = (_git(root, "status", "--porcelain", "--", ".", ":!dvc.lock", ":!reports") or "").splitlines()
    shown = ", ".join(line[3:] for line in changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
    return [["commit", commit.strip()], ["uncommitted changes", shown or "none"]]


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def written() -> str:
    """When and where the page was made."""
    return f"{time.strftime('%Y-%m-%d %H:%M %z')} on {platform.node()}"


def lineage(
    results: Results,
    sources: Mapping[str, SourceBase],
    params: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    commit: Sequence[Sequence[str]],
) -> Section:
    """What made the model. `params` are the sections to show, `runs` the run records, `commit` what `origin` says."""
    hashes = []
    for stage in (results.lineage(name) for name in ("mix", "pretrain", "decay", "finetune", "prefer")):
        hashes.append([stage["stage"], "its code", stage["code"]])
        hashes += [[stage["stage"], path, digest] for path, digest in stage["inputs"].items()]
    return Section(
        "lineage",
        "What made it",
        [
            Table("The repository when this page was written", _named("what", "value"), commit),
            _licences(results, sources),
            Table("Where the documents come from", _named("source", "from", "licence", "sha256"), _origins(sources)),
            Table("Code and inputs of the model, by content", _named("stage", "what", "sha256"), hashes),
            Details("Parameters", [_parameters(name, value) for name, value in params.items()]),
            Details("Versions of packages", [_packages(runs)]),
        ],
    )


def _named(*titles: str) -> list[Column]:
    return [Column(title, numeric=False) for title in titles]


def _licences(results: Results, sources: Mapping[str, SourceBase]) -> Table:
    """Documents and tokens in the training set per licence."""
    mixed, encoded = results.metrics("mix")["sources"], results.metrics("encode")["sources"]
    groups: dict[str, list[str]] = {}
    for name, source in sources.items():
        if mixed.get(name, {"documents": {"train": 0}})["documents"]["train"]:
            groups.setdefault(source.licence, []).append(name)
    rows = [
        [
            licence,
            "yes" if any(mixed[name]["share_alike"] for name in names) else "no",
            ", ".join(names),
            count(sum(mixed[name]["documents"]["train"] for name in names)),
            percent(sum(encoded[name]["train_share"] for name in names)),
        ]
        for licence, names in groups.items()
    ]
    named = _named("licence", "share-alike", "sources")
    columns = [*named, Column("training documents"), Column("share of training tokens")]
    return Table("Licences of what the model was trained on", columns, rows)


def _origins(sources: Mapping[str, SourceBase]) -> list[list[str]]:
    return [[name, source.origin, source.licence, getattr(source, "sha256", NONE)] for name, source in sources.items()]


def _parameters(name: str, value: Any) -> Table:
    return Table(name, _named("parameter", "value"), [[key, text] for key, text in _flat(name, value)])


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """One pair a leaf, named as `dvc exp run -S` names it: `pretrain.betas`, `[0.9, 0.95]`."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return [pair for key, entry in value.items() for pair in _flat(f"{name}.{key}", entry)]
    return [(name, "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))]


def _packages(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Every package that a stage ran with; more than one version if stages ran with different ones."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run["versions"].items():
            versions.setdefault(package, set()).add(version)
    rows = [[package, ", ".join(sorted(found))] for package, found in sorted(versions.items())]
    return Table("Packages that the stages ran with", _named("package", "version"), rows)
