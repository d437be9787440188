"""`pretrain` and `decay` as stages, on a small project."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.model import huggingface
from lib.trainers import checkpoints
from tests.text import project
from tests.trainers import tokens


def train(root: Path) -> Path:
    for stage in ("pretrain", "decay"):
        project.run(root, stage)
    return root


def test_the_decay_goes_on_from_the_stable_run(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path))
    _, record = checkpoints.read(root / "models/stable")
    stable, decay = ((root / "reports" / name / "train.csv").read_text().splitlines() for name in ("pretrain", "decay"))
    assert record["step"] == 20
    assert [line.split(",")[0] for line in stable[1:]] == [str(step) for step in range(2, 21, 2)]
    assert [line.split(",")[0] for line in decay[1:]] == [str(step) for step in range(22, 41, 2)]
    rates = [float(line.split(",")[3]) for line in decay[1:]]
    assert rates == sorted(rates, reverse=True)
    assert huggingface.load(root / "models/base").config.width == 32


def test_without_a_decay_the_base_is_the_stable_model(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path, decay={"fraction": 0.0}))
    state, _ = checkpoints.read(root / "models/stable")
    base = dict(huggingface.load(root / "models/base").named_parameters())
    assert all(np.array_equal(base[name].detach().numpy(), value) for name, value in state.model.items())
