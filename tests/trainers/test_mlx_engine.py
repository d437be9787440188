"""The same run in torch and in MLX, and from one into the other, through the stages themselves."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.backends import cpu
from lib.backends.mlx import Mlx
from lib.model import huggingface
from lib.model.decoder import Decoder
from lib.pipeline.errors import SmeltError
from lib.trainers import checkpoints
from lib.trainers.loader import IGNORED, Batch
from tests.text import project
from tests.trainers import tokens
from tests.trainers.test_loop import CONFIG, SETTINGS, Counting

pytest.importorskip("mlx.core")

from lib.trainers.mlx_engine import MlxEngine, for_pretraining


def train(root: Path, stage: str, device: str, patch: pytest.MonkeyPatch) -> Path:
    patch.setenv("SMELT_DEVICE", device)
    project.run(root, stage)
    return root


def losses(root: Path) -> np.ndarray:
    rows = [
        row
        for stage in ("pretrain", "decay")
        for row in csv.DictReader((root / "reports" / stage / "train.csv").open(encoding="utf-8"))
    ]
    return np.array([(float(row["loss"]), float(row["gradient_norm"])) for row in rows])


def base(root: Path) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in huggingface.load(root / "models/base").named_parameters()}


def near(one: Path, other: Path) -> None:
    """Rounding grows with every step; these limits are of 20 steps and a decay of 5."""
    assert len(losses(one)) == 25
    np.testing.assert_allclose(losses(one), losses(other), rtol=1e-4)
    mine, theirs = base(one), base(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        # AdamW turns the rounding of a gradient that is nearly zero into whole steps.
        assert np.linalg.norm(value - theirs[name]) < 1e-3 * np.linalg.norm(value), name


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_agrees_with_torchs_wherever_it_changes_over(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Muon iterates in bf16 where the processor is quick in it, whatever the precision of the model.
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    changes = {"precision": "fp32", "log_every": 1, "weight_decay": 0.1, "optimizer": optimizer}
    fresh = tokens.make(tmp_path / "fresh", pretrain=changes, decay={"fraction": 0.2})
    runs = {}
    for begins in ("cpu", "mlx"):
        stable = train(shutil.copytree(fresh, tmp_path / begins), "pretrain", begins, monkeypatch)
        for ends in ("cpu", "mlx"):
            root = shutil.copytree(stable, tmp_path / f"{begins}-{ends}")
            runs[begins, ends] = train(root, "decay", ends, monkeypatch)
    expected = runs.pop(("cpu", "cpu"))
    assert losses(expected)[-1, 0] < losses(expected)[0, 0] - 0.2
    for run in runs.values():
        near(expected, run)
    saved = [checkpoints.read(tmp_path / name / "models/stable")[0] for name in ("cpu", "mlx")]
    assert saved[0].optimizer.keys() == saved[1].optimizer.keys()


def test_what_mlx_has_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.make(tmp_path, pretrain={"precision": "fp8"})
    with pytest.raises(SmeltError, match=r"precision is fp8, and .*mlx.* has no 8-bit products"):
        train(tmp_path, "pretrain", "mlx", monkeypatch)


def engine(**changes: object) -> MlxEngine:
    model = Decoder(CONFIG)
    model.initialise(1)
    return for_pretraining(Mlx(), model, SETTINGS.model_copy(update=changes), say=lambda line: None)


def advance(engine: MlxEngine, steps: range) -> None:
    for step in steps:
        batch = Counting().rows(np.arange(step * 8, step * 8 + 8))
        engine.gradient(batch, batch.labels.size)
        engine.clip(1.0)
        engine.update(1 / (1 + step))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_in_the_same_bits(precision: str) -> None:
    whole, resumed = engine(precision=precision), engine(precision=precision)
    advance(whole, range(3))
    resumed.load(whole.state())
    for each in (whole, resumed):
        advance(each, range(3, 6))
    for one, other in zip(whole.state(), resumed.state(), strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_batch_may_be_cut_anyhow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a micro-batch has many documents, other labels without loss, or recomputes its activations."""
    inputs, labels, _ = Counting().rows(np.arange(8))
    labels = np.where(np.arange(8)[:, None] + np.arange(16) > 17, IGNORED, labels)
    batch = Batch(inputs, labels, np.tile(np.arange(16) // 5, (8, 1)).astype(np.int32))
    norms = []
    for rows, checkpointing in (("8", False), ("1", False), ("3", True)):
        monkeypatch.setenv("SMELT_MICRO_BATCH", rows)
        trained = engine(activation_checkpointing=checkpointing)
        loss = trained.gradient(batch, int((labels != IGNORED).sum()))
        assert loss == pytest.approx(trained.loss_sum(batch) / (labels != IGNORED).sum(), rel=1e-5)
        norms.append(trained.clip(1.0))
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)
    assert trained.next_tokens(inputs[:2]).shape == (2,)


def test_a_checkpoint_of_another_shape_is_refused() -> None:
    state = engine().state()
    state.model["lm_head.weight"] = state.model["lm_head.weight"][:-1]
    with pytest.raises(SmeltError, match="other weights than this model"):
        engine().load(state)
