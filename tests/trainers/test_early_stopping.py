"""Early stopping: the best of a run is kept, and a run that was cut stops where another would have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.trainers import checkpoints
from lib.trainers.early_stopping import EarlyStopping
from lib.trainers.loader import Batch
from lib.trainers.loop import Trainer
from tests.trainers.test_loop import CONFIG, Counting, same, trainer, weights


class Turning(Counting):
    """To validate with: rows that count upwards at first, and whose ends go on in another way than was learnt.

    So the loss on them falls while counting is learnt, and rises as the model gets surer of it.
    """

    def rows(self, indices: np.ndarray) -> Batch:
        batch = super().rows(indices)
        labels = batch.labels.copy()
        labels[:, 8:] = (labels[:, 8:] * 7 + 3) % CONFIG.vocab_size
        return batch._replace(labels=labels)


def watched(folder: Path, steps: int = 60, patience: int | None = 3, **changes: object) -> Trainer:
    made = trainer(folder, steps=steps, validate_every=3, learning_rate=0.03, **changes)
    made._task = replace(made._task, val=Turning(), patience=patience)
    made._stopping = EarlyStopping(patience)
    return made


def test_the_best_is_kept_and_the_rest_is_not_trained(tmp_path: Path) -> None:
    free = watched(tmp_path / "free", patience=None)
    losses = {row["step"]: row["loss"] for row in free.fit().val}
    best = min(losses, key=losses.__getitem__)
    assert 3 < best < 45  # it does get worse

    stopped = watched(tmp_path / "stopped")
    history = stopped.fit()
    assert history.val[-1]["step"] == best + 9 == stopped.step  # three validations later
    assert stopped.kept == {**history.val[-4]}
    assert stopped.report()["kept_step"] == best
    assert stopped.validate()[0] == pytest.approx(losses[best], rel=1e-6)
    # and they are the weights that the other run had there
    there = watched(tmp_path / "there", patience=None, checkpoint_every=3)
    there._task = replace(there._task, steps=best)
    there.fit()
    assert same(weights(there), weights(stopped))


def test_a_cut_run_stops_where_another_does(tmp_path: Path) -> None:
    """Cut after the best, so that its weights and the count come from the checkpoint."""
    whole = watched(tmp_path / "whole")
    whole.fit()
    best = whole.kept["step"]
    first = watched(tmp_path / "cut")
    first._task = replace(first._task, steps=best + 4, schedule=whole._task.schedule)
    first._settings = first._settings.model_copy(update={"checkpoint_every": best + 4})
    first._stopping = EarlyStopping(100)
    first._store._every = best + 4
    first.fit()
    state, record = checkpoints.read(next((tmp_path / "cut").glob("step-*")))
    assert record["stopping"]["step"] == best
    assert record["stopping"]["waited"] == 1
    assert same(dict(state.best), weights(whole))

    rest = watched(tmp_path / "cut")
    rest.fit()
    assert rest.step == whole.step
    assert same(weights(rest), weights(whole))
    assert rest.history.val == whole.history.val


def test_without_patience_checkpoints_are_as_before(tmp_path: Path) -> None:
    trainer(tmp_path, steps=5).fit()
    (folder,) = tmp_path.glob("step-*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "state.json",
    ]
    assert "stopping" not in checkpoints.read(folder)[1]
