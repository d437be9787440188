"""Runs that are killed with SIGKILL end in the bits of a run that was left alone. `make bench-kills` does many."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import kills
from tests.benchmarks.kills import Kill
from tests.trainers import tokens
from tests.workspace import Workspace

COMMAND = kills.COMMANDS["the command"]


def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """At any moment, while a checkpoint is written, and with a file torn under its final name, as a file system may do
    at a power cut though the files were synced."""
    project = tokens.make_workspace(tmp_path / "project", **kills.SETTINGS)
    alone = kills.run(project, COMMAND, [])
    moments = [Kill(37, writing=False, delay=0.013), Kill(80, writing=True, delay=0.0005), Kill(120, False, delay=0.0)]
    found = kills.run(project, COMMAND, moments, before_last=tear_newest)
    assert len(found.kills) == 3
    assert len(found.resumed) == 3
    assert all(step > 0 for step in found.resumed)
    assert "is damaged (model.safetensors is not what was written)" in found.output
    assert found.hash == alone.hash


def tear_newest(project: Workspace) -> None:
    weights = max((project.folder / ".scratch/pretrain").glob("*/step-*")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000] + bytes(weights.stat().st_size - 1000))
