"""Two processes give what one gives, whatever is divided between them, and each goes on where the other stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.backends.launch import check_devices
from lib.pipeline.errors import SmeltError
from lib.trainers import processes
from lib.trainers.loader import IGNORED, Batch
from tests.trainers.together import CASES, CUT, STEPS, Case, train
from tests.workspace import ROOT

NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process begins each case; then two run all of them, in one start of torchrun."""
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


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def together(results: dict[str, Any], case: Case) -> dict[str, Any]:
    return results[case.name]


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
    assert share == 1 if case.sharding == "ddp" else 0.5 <= share < 0.55


def test_one_process_goes_on_where_two_stopped(folder: Path, alone: dict[str, Any], case: Case) -> None:
    rest = train(case, folder / case.name / "first")
    assert rest["history"]["train"][0]["step"] == 1
    agree(rest, alone)


def test_two_processes_go_on_where_one_stopped(together: dict[str, Any], alone: dict[str, Any]) -> None:
    agree(together["rest"], alone)


def test_dropout_goes_on_as_if_nothing_had_happened(results: dict[str, Any]) -> None:
    """Each process drops others, and again the same ones after a restart: to the bit."""
    whole, rest = results["dropout"]["whole"], results["dropout"]["rest"]
    assert rest["history"] == whole["history"]
    assert rest["weights"] == whole["weights"]
    assert whole["history"] != results["fsdp-lora"]["whole"]["history"]


def test_a_signal_to_one_process_stops_all_at_the_same_step(results: dict[str, Any]) -> None:
    interrupted = results["interrupted"]
    assert interrupted["code"] == 128 + signal.SIGTERM
    assert 0 < interrupted["step"] < STEPS
    assert f"continuing from step {interrupted['step']} of {STEPS}" in interrupted["said"]
    assert interrupted["weights"] == results["ddp"]["whole"]["weights"]


def test_what_fits_in_every_process_is_taken(results: dict[str, Any]) -> None:
    """Four rows for each; the second process, short of memory, makes both take two at a time."""
    cramped = results["cramped"]
    assert "a micro-batch of 4 rows does not fit into memory; going on with 2 rows" in "\n".join(cramped["said"])
    agree({**cramped, "next": None}, {**results["ddp"]["whole"], "next": None})


def test_the_model_that_was_given_is_whole_in_the_end(results: dict[str, Any]) -> None:
    assert results["given"] is True


def test_what_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weights = [torch.nn.Parameter(torch.ones(4))]
    with pytest.raises(SmeltError, match="8-bit optimizers cannot"):
        processes.shard(torch.nn.Linear(2, 2), [bitsandbytes.optim.AdamW8bit(weights)])
    monkeypatch.setenv("SMELT_SHARDING", "zero")
    with pytest.raises(SmeltError, match="'zero'; it is ddp"):
        processes.shards()


@pytest.mark.parametrize(("name", "gpus", "told"), [("mps", 0, "mps has one device"), ("cuda", 1, "than it has GPUs")])
def test_processes_without_a_device_of_their_own_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, told: str
) -> None:
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SmeltError, match=told):
        check_devices(name, gpus)


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
