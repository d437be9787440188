"""Two processes give what one gives, whatever is divided between them, and each goes on where the other stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.trainers import processes
from lib.trainers.loader import IGNORED, Batch
from tests.trainers.together import CASES, CUT, STEPS, Case, train
from tests.workspace import ROOT

NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process begins each case; then two run all of them."""
    folder = tmp_path_factory.mktemp("together")
    for case in CASES:
        (folder / case.name).mkdir()
        train(case, folder / case.name / "rest", steps=CUT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "tests.trainers.together", str(folder)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def together(folder: Path, case: Case) -> dict[str, Any]:
    return json.loads((folder / case.name / "results.json").read_text())


@pytest.fixture
def alone(folder: Path, case: Case) -> dict[str, Any]:
    """A finished run is read from its last checkpoint when it is asked for again."""
    return train(case, folder / case.name / "alone")


def agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same curves within rounding, and so the same model."""
    for kind in ("train", "val"):
        rows, others = one["history"][kind], other["history"][kind]
        assert [row["step"] for row in rows] == [row["step"] for row in others]
        for row, twin in zip(rows, others, strict=True):
            assert row == pytest.approx(twin, rel=2e-4)
    for name, weight in one["weights"].items():
        np.testing.assert_allclose(weight, other["weights"][name], atol=2e-4, err_msg=name)
    assert one["next"] == other["next"]


def test_two_processes_give_the_curve_of_one(together: dict[str, Any], alone: dict[str, Any], case: Case) -> None:
    assert (together["whole"]["processes"], alone["processes"]) == (2, 1)
    assert len(alone["history"]["train"]) == STEPS
    agree(together["whole"], alone)
    # What the first process holds: all of it, or its share, rounded up.
    share = together["whole"]["held"] / alone["held"]
    assert share == 1 if case.sharding == "ddp" else 0.5 <= share < 0.52


def test_one_process_goes_on_where_two_stopped(folder: Path, alone: dict[str, Any], case: Case) -> None:
    rest = train(case, folder / case.name / "first")
    assert rest["history"]["train"][0]["step"] == 1
    agree(rest, alone)


def test_two_processes_go_on_where_one_stopped(together: dict[str, Any], alone: dict[str, Any]) -> None:
    agree(together["rest"], alone)


@pytest.mark.parametrize(("rows", "count"), [(7, 2), (1, 3), (6, 3), (2, 4)])
def test_rows_are_divided_evenly_and_each_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, rows: int, count: int
) -> None:
    inputs = np.arange(rows * 4).reshape(rows, 4)
    batch = Batch(inputs, inputs + 1, np.zeros((rows, 4), np.int32))
    monkeypatch.setattr(processes, "count", lambda: count)
    parts = []
    for rank in range(count):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        parts.append(processes.own_rows(batch))
    assert len({len(part.inputs) for part in parts}) == 1
    labels = np.concatenate([part.labels for part in parts])
    kept = labels[(labels != IGNORED).all(axis=1)]
    assert sorted(kept.tolist()) == batch.labels.tolist()
    assert (labels != IGNORED).sum() == batch.labels.size
