"""The section on what the making cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lib.report import charts
from lib.report.formats import NONE, duration, energy, size
from lib.report.page import Block, Column, Details, Figure, Note, Section, Table

UNREADABLE = "not readable on this machine"
HARNESS_FIELDS = {
    "stage",
    "started",
    "seconds",
    "peak_memory_mib",
    "energy_joules",
    "host",
    "system",
    "cpu",
    "workers",
    "versions",
    "variants",  # of an export, which has a section of its own
}


def total_energy(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Joules of all runs; None as soon as one could not be read, because a part is not the sum."""
    readings = [run["energy_joules"] for run in runs]
    return None if None in readings else sum(readings)


def _by_stage(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["stage"].partition("@")[0], []).append(run)
    return groups


def _cost_row(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    peak = max(run["peak_memory_mib"] for run in runs)
    seconds = sum(run["seconds"] for run in runs)
    return [name, duration(seconds), size(round(peak * 2**20)), energy(total_energy(runs))]


def cost(runs: Sequence[Mapping[str, Any]]) -> Section:
    """Time, memory and energy of every stage, as its run record has them."""
    groups = _by_stage(runs)
    frame = pd.DataFrame(
        {"name": list(groups), "value": [sum(run["seconds"] for run in group) for group in groups.values()]}
    )
    frame = frame.assign(kind="time", stderr=0.0, text=frame["value"].map(duration))
    frame["value"] /= 60
    chart = charts.bars(frame, {"time": "base"}, "minutes", "~g", "Time per stage, with the figures beside the bars.")
    columns = [Column("stage"), Column("time"), Column("peak memory"), Column("energy")]
    rows = [
        _cost_row(f"{name} ({len(group)} runs)" if len(group) > 1 else name, group) for name, group in groups.items()
    ]
    each = [[*_cost_row(run["stage"], [run]), run["started"], run["host"], str(run["workers"])] for run in runs]
    each_columns = [*columns, *(Column(name, numeric=False) for name in ("started", "host")), Column("workers")]
    observed = [
        [run["stage"], key.replace("_", " "), f"{value:,.1f}" if isinstance(value, float) else str(value)]
        for run in runs
        for key, value in run.items()
        if key not in HARNESS_FIELDS
    ]
    machines = sorted({f"{run['host']}: {run['cpu']}, {run['system']}" for run in runs})
    blocks: list[Block] = [
        Note(f"Made on {'; '.join(machines)}."),
        Figure(chart, "Time of every stage; of all its runs together, where it has several."),
        Table(
            "Time, memory of the largest process, and energy of the processors", columns, rows, _cost_row("all", runs)
        ),
    ]
    if total_energy(runs) is None:
        blocks.append(Note(f"{NONE}: {UNREADABLE}."))
    details: list[Block] = [Table("Every run", each_columns, each)]
    if observed:
        observed_columns = [Column("stage"), Column("what", numeric=False), Column("value")]
        details.append(Table("What the stages observed of this machine", observed_columns, observed))
    blocks.append(Details("Every run", details))
    return Section("cost", "What it cost", blocks)
