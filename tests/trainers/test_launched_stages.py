"""A training stage under SMELT_LAUNCHER: killed and started again, it ends as one process does."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.trainers import checkpoints
from tests.text import project
from tests.trainers import tokens
from tests.workspace import ROOT


def launch(root: Path, sharding: str) -> subprocess.Popen:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SMELT_DEVICE": "cpu", "SMELT_COMPILE": "0",
        "SMELT_LAUNCHER": "torchrun --nproc-per-node 2", "SMELT_SHARDING": sharding,
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.pretrain"]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    said = process.communicate(timeout=90)[1]
    return process.returncode, said


def curve(root: Path, name: str) -> np.ndarray:
    with open(root / "reports/pretrain" / name, newline="") as stream:
        return np.array([[float(value) for value in row] for row in list(csv.reader(stream))[1:]])


def until(root: Path, pattern: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not list(root.glob(pattern)):
        assert process.poll() is None, finish(process)[1]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pretraining_in_two_processes_is_that_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is killed, and the run is started again, otherwise divided."""
    monkeypatch.setenv("SMELT_DEVICE", "cpu")
    monkeypatch.setenv("SMELT_COMPILE", "0")
    changes = {"pretrain": {"tokens": 40 * 256, "validate_every": 20}}
    alone, together = (tokens.make(tmp_path / name, **changes) for name in ("alone", "together"))
    project.run(alone, "pretrain")

    killed = launch(together, "ddp")
    until(together, ".scratch/pretrain/*/step-*5", killed)
    os.kill(int((together / ".scratch/pretrain.lock").read_text()), signal.SIGKILL)
    code, said = finish(killed)
    assert code == 1
    assert "The same command continues from the last checkpoint" in said.splitlines()[-1]
    assert not (together / "models/stable").exists()

    code, said = finish(launch(together, "fsdp"))
    assert code == 0, said
    assert "continuing from step" in said

    for name in ("train.csv", "val.csv"):
        np.testing.assert_allclose(curve(together, name), curve(alone, name), rtol=5e-3)  # bf16, where there is any
    (one, _), (other, record) = (checkpoints.read(root / "models/stable") for root in (alone, together))
    assert record["step"] == 40
    for ours, theirs in zip(one, other, strict=True):
        assert {name: value.shape for name, value in ours.items()} == {
            name: value.shape for name, value in theirs.items()
        }
    assert json.loads((together / "reports/pretrain/run.json").read_text())["processes"] == 2
    assert not (together / ".scratch/pretrain").exists()
