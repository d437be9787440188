"""Checkpoints: whole or absent, damage found, none of another configuration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.trainers import checkpoints
from lib.trainers.checkpoints import DamagedError, Store
from lib.trainers.engine import State
from tests.trainers.test_loop import same, trainer, weights


def state(value: float) -> State:
    weight = np.full((4, 3), value, np.float32)
    return State({"w": weight}, {"w.exp_avg": weight * 2, "w.step": np.array(7)}, {"cpu": np.arange(9, dtype=np.uint8)})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    record = {"step": 7, "loss": float("nan"), "rows": [0.1, 1 / 3], "identity": {}}
    checkpoints.write(tmp_path / "one", state(0.1), record)
    found, read = checkpoints.read(tmp_path / "one")
    assert all(same(one, other) for one, other in zip(state(0.1), found, strict=True))
    assert str(read) == str(record)
    assert found.optimizer["w.step"].dtype == np.int64
    assert found.optimizer["w.step"].shape == ()


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        checkpoints.write(tmp_path / name, state(0.1), {"step": 7})
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [_cut, _flip, _empty, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
def test_damage_to_any_file_is_found(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    checkpoints.write(tmp_path / "one", state(0.1), {"step": 7, "tokens": 12345678})
    harm(tmp_path / "one" / name)
    with pytest.raises(DamagedError):
        checkpoints.read(tmp_path / "one")


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", steps=20)
    whole.fit()
    trainer(tmp_path / "run", steps=20).fit()
    _cut(tmp_path / "run/step-00000020/model.safetensors")
    _flip(tmp_path / "run/step-00000015/state.json")
    again = trainer(tmp_path / "run", steps=20)
    again.fit()
    assert [line for line in again._run.said if "damaged" in line] == again._run.said[:2]
    assert "step-00000020 is damaged" in again._run.said[0]
    assert "continuing from step 10" in again._run.said[2]
    assert (tmp_path / "run/damaged-step-00000020").is_dir()
    assert same(weights(whole), weights(again))


def test_without_a_whole_checkpoint_the_run_begins_anew(tmp_path: Path) -> None:
    trainer(tmp_path, steps=5).fit()
    _empty(tmp_path / "step-00000005/state.json")
    again = trainer(tmp_path, steps=5)
    again.fit()
    assert not any("continuing" in line for line in again._run.said)
    assert again.step == 5


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=5).fit()
    path = tmp_path / "step-00000005"
    found, record = checkpoints.read(path)
    shutil.rmtree(path)
    checkpoints.write(path, found, {**record, "identity": {"shape": "large", "seed": 2}})
    message = "(?s)step 5 was made with another configuration.*shape: it has 'large', this run 'tiny'.*seed: it has 2"
    with pytest.raises(SmeltError, match=message):
        trainer(tmp_path, steps=5).fit()


def test_a_checkpoint_with_other_weights_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=5)
    for name in ("w", "lm_head.weight"):
        with pytest.raises(SmeltError, match="other weights than this model"):
            run._engine.load(State({name: np.zeros((2, 2), np.float32)}, {}, run._engine.state().random))


def test_an_error_of_the_writer_reaches_the_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "file", every=5)
    (tmp_path / "file").write_text("where a folder should be")
    store.save(state(1.0), {"step": 5})
    with pytest.raises(OSError, match="file"):
        store.wait()
    store.wait()  # once


def test_the_newest_and_the_last_three_regular_ones_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, every=5)
    for step in (5, 10, 15, 18, 20, 22, 23):
        store.save(state(step), {"step": step})
    store.wait()
    assert [path.name[-2:] for path in sorted(tmp_path.iterdir())] == ["10", "15", "20", "23"]
    assert store.newest(print)[1] == {"step": 23}
    assert store.back(print)[1] == {"step": 20}
    assert json.loads((tmp_path / "step-00000020/state.json").read_text())["record"] == {"step": 20}
    assert store.newest(print)[1] == {"step": 20}
