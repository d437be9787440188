"""Guards: what they leave out, when they end a run, and that they decide the same after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lib.params.training import Guards
from lib.pipeline.errors import SmeltError
from lib.trainers.guards import FIRST, Guard, Verdict
from lib.trainers.loader import Batch
from tests.trainers.test_loop import Counting, same, trainer, weights

SETTINGS = Guards(window=16, sigma=4.0, action="skip", limit=4)
USUAL = [2.0 + 0.1 * math.sin(step) for step in range(40)]


def guard(losses: list[float] = USUAL, warmup_steps: int = 2, **changes: object) -> Guard:
    """A guard that saw these losses."""
    made = Guard(SETTINGS.model_copy(update=changes), warmup_steps, "pretrain")
    for number, loss in enumerate(losses):
        assert made.judge(number, loss, 1.0 + loss / 10) is Verdict.APPLY
    return made


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, -math.inf)])
def test_what_is_not_finite_is_left_out_and_counted(loss: float, norm: float) -> None:
    judge = guard(losses=[])
    assert judge.judge(0, loss, norm) is Verdict.SKIP
    assert judge.counts == {"not_finite": 1, "spikes": 0, "roll_backs": 0}


@pytest.mark.parametrize(("action", "verdict"), [("skip", Verdict.SKIP), ("rollback", Verdict.ROLL_BACK)])
def test_a_spike_is_what_lies_sigma_deviations_above_the_window(action: str, verdict: Verdict) -> None:
    mean, deviation = np.mean(USUAL[-16:]), np.std(USUAL[-16:])
    judge = guard(action=action)
    assert judge.judge(40, mean + 3.99 * deviation, 1.2) is Verdict.APPLY
    judge = guard(action=action)
    assert judge.judge(40, mean + 4.01 * deviation, 1.2) is verdict
    assert judge.judge(41, mean - 40 * deviation, 1.2) is Verdict.APPLY  # better than usual is no trouble
    judge = guard(action=action)
    assert judge.judge(40, mean, 9.0) is verdict
    assert "gradient norm 9" in judge.trouble


def test_a_spike_does_not_become_usual() -> None:
    judge = guard()
    assert [judge.judge(40 + k, 9.0, 1.2) for k in range(3)] == [Verdict.SKIP] * 3
    assert judge.judge(43, 2.0, 1.2) is Verdict.APPLY


def test_a_run_that_has_seen_less_than_a_window_has_no_spikes() -> None:
    assert guard(USUAL[:15]).judge(15, 99.0, 99.0) is Verdict.APPLY


def test_trouble_within_a_window_ends_the_run_and_old_trouble_is_forgotten() -> None:
    judge = guard()
    for number in (40, 41, 42, 57, 58, 73):  # never four within 16
        assert judge.judge(number, math.nan, 1.0) is Verdict.SKIP
    judge = guard()
    for number in (40, 45, 50):
        judge.judge(number, 9.0, 1.0)
    message = r"(?s)4 of the last 16 steps.*batch 40: loss 9.*batch 55.*data changed.*Lower pretrain\.learning_rate"
    with pytest.raises(SmeltError, match=message):
        judge.judge(55, 9.0, 1.0)


@pytest.mark.parametrize(
    ("before", "values", "cause"),
    [
        ([], [math.nan] * 4, "from the first step"),
        (USUAL[:5], [math.nan] * 4, "warm-up was not over"),
        (USUAL, [math.inf] * 4, "it diverged"),
        (USUAL, [9.0] * 4, "data changed"),
    ],
)
def test_the_diagnosis_says_what_it_looks_like(before: list[float], values: list[float], cause: str) -> None:
    judge = guard([*before, *before], warmup_steps=20)
    for number, value in enumerate(values[:-1]):
        judge.judge(100 + number, value, 1.0)
    with pytest.raises(SmeltError, match=cause):
        judge.judge(103, values[-1], 1.0)


def test_a_loss_that_does_not_fall_is_said_once() -> None:
    said = [line for judge in [Guard(SETTINGS, 4, "pretrain")] for line in _follow(judge, [3.0, 3.1, 2.9] * 20)]
    assert len(said) == 1
    assert "has not fallen: 3.0" in said[0]
    falling = Guard(SETTINGS, 4, "pretrain")
    assert not _follow(falling, [3.0 - 0.05 * step for step in range(40)])
    assert falling.report()["loss_fell"] is True


def _follow(judge: Guard, losses: list[float]) -> list[str]:
    said = []
    for number, loss in enumerate(losses):
        judge.judge(number, loss, 1.0)
        said.append(judge.check_fall(last=False))
    return [line for line in said if line]


def test_a_short_run_is_judged_at_its_end_and_can_still_be_extended() -> None:
    judge = guard([3.0] * (FIRST + 4))
    before = judge.state()
    assert judge.check_fall(last=False) is None
    assert "has not fallen" in judge.check_fall(last=True)
    assert judge.state() == before


def test_its_state_survives_json() -> None:
    judge, values = guard(), [9.0, 2.0, math.nan, 2.1, 9.0]
    restored = Guard(SETTINGS, 2, "pretrain")
    restored.load(json.loads(json.dumps(judge.state())))
    verdicts = [[each.judge(40 + k, value, 1.2) for k, value in enumerate(values)] for each in (judge, restored)]
    assert verdicts[0] == verdicts[1]
    assert judge.state() == restored.state()
    assert judge.report() == restored.report()


class Spiking(Counting):
    """At one batch, rows that count downwards; a signal at another."""

    def __init__(self, spike: int | None = None, stop: int | None = None) -> None:
        self.spike, self.stop, self.calls = spike, stop, 0

    def rows(self, indices: np.ndarray) -> Batch:
        self.calls += 1
        if self.calls == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        batch = super().rows(indices)
        # By content and not by call: a run that was resumed or rolled back asks for it again.
        if self.spike is not None and list(indices[:2]) == list(self.order(self.spike)[:2]):
            return Batch(batch.inputs, batch.inputs[:, ::-1].copy(), batch.documents)
        return batch

    def order(self, step: int) -> np.ndarray:
        from lib.trainers.loader import batch_indices

        return batch_indices(3, step, 8, len(self))


GUARDS = Guards(window=16, sigma=8.0, action="skip", limit=4)


def test_a_spiking_batch_is_as_if_it_had_not_been_there(tmp_path: Path) -> None:
    run = trainer(tmp_path, Spiking(spike=45), steps=60, guards=GUARDS)
    history = run.fit()
    assert run.report()["guards"] == {"not_finite": 0, "spikes": 1, "roll_backs": 0, "loss_fell": True}
    assert [row["step"] for row in history.train] == [step for step in range(1, 61) if step != 46]
    assert run.tokens == 59 * 8 * 16
    assert "left out" in run._run.said[0]


def test_a_roll_back_passes_over_the_batches_since_the_checkpoint(tmp_path: Path) -> None:
    rolling = GUARDS.model_copy(update={"action": "rollback"})
    run = trainer(tmp_path / "one", Spiking(spike=47), steps=60, guards=rolling)
    history = run.fit()
    assert "rolled back from step 47 to 45" in run._run.said[1]
    assert [row["step"] for row in history.train] == list(range(1, 61))

    class PassingOver(Counting):
        """Batches 45 to 47 are not there."""

        def rows(self, indices: np.ndarray) -> Batch:
            steps = {tuple(Spiking().order(step)): step for step in range(70)}
            step = steps.get(tuple(indices))
            return super().rows(Spiking().order(step + 3) if step is not None and step >= 45 else indices)

    plain = trainer(tmp_path / "other", PassingOver(), steps=60, guards=GUARDS)
    plain.fit()
    assert same(weights(run), weights(plain))


@pytest.mark.parametrize("stop", [44, 49, 53, 58])
def test_a_run_that_was_stopped_around_a_roll_back_ends_in_the_same_bits(tmp_path: Path, stop: int) -> None:
    rolling = GUARDS.model_copy(update={"action": "rollback"})
    whole = trainer(tmp_path / "whole", Spiking(spike=47), steps=60, guards=rolling)
    whole.fit()
    with pytest.raises(SystemExit):
        trainer(tmp_path / "stopped", Spiking(spike=47, stop=stop), steps=60, guards=rolling).fit()
    resumed = trainer(tmp_path / "stopped", Spiking(spike=47), steps=60, guards=rolling)
    resumed.fit()
    assert same(weights(whole), weights(resumed))
    assert resumed.history == whole.history
    assert resumed.report() == whole.report()
