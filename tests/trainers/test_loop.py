"""The loop: it learns, resumes to the same bits, and weighs every token the same however the batch is cut."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.backends.cpu import Cpu
from lib.backends.precision import Precision
from lib.model.config import ModelConfig
from lib.model.decoder import Decoder
from lib.params.training import Guards, Lion, Muon, Pretrain, Samples
from lib.pipeline.errors import SmeltError
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import IGNORED, Batch, Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining
from lib.trainers.schedules import wsd

CPU, FP32 = Cpu(bf16=False), Precision("fp32", None)
CONFIG = ModelConfig(
    vocab_size=32, context_length=16, layers=1, width=32, heads=2, kv_heads=1, feed_forward=32,
    rope_theta=10000.0, norm_eps=1e-6, qk_norm=True, tie_embeddings=False,
)  # fmt: skip
SETTINGS = Pretrain(
    precision="fp32", activation_checkpointing=False,
    tokens=1, batch_tokens=1, extend_from=None, optimizer="muon", learning_rate=1e-2, embedding_learning_rate=1e-2,
    head_learning_rate=1e-2, betas=(0.9, 0.95), weight_decay=0.1, clip_norm=1.0, warmup_steps=2,
    muon=Muon(momentum=(0.85, 0.95), momentum_steps=10, iterations=5), lion=Lion(betas=(0.9, 0.99)), cautious=True,
    schedule="wsd", samples=Samples(every=1, tokens=1, prompts=[]),
    checkpoint_every=5, log_every=1, validate_every=10, validate_rows=4,
)  # fmt: skip

GUARDS = Guards(window=16, sigma=6.0, action="skip", limit=4)


class Counting:
    """Rows that count upwards from a random start: predictable, once learnt."""

    def __len__(self) -> int:
        return 50

    def rows(self, indices: np.ndarray) -> Batch:
        starts = np.array([np.random.default_rng(int(index)).integers(CONFIG.vocab_size) for index in indices])
        tokens = (starts[:, None] + np.arange(17)) % CONFIG.vocab_size
        return Batch(tokens[:, :-1], tokens[:, 1:], np.zeros((len(tokens), 16), np.int32))


class FakeRun:
    """The parts of a run that the loop uses, without DVC."""

    id, name, follows = "pretrain", "pretrain", False

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.scratch_home, self.observed, self.said = scratch, scratch, {}, []
        scratch.mkdir(exist_ok=True)

    def log(self, message: str) -> None:
        self.said.append(message)


def trainer(
    scratch: Path, batches: object = None, steps: int = 20, guards: Guards = GUARDS, **changes: object
) -> Trainer:
    model = Decoder(CONFIG)
    model.initialise(1)
    settings = SETTINGS.model_copy(update=changes)
    batches = batches or Counting()
    run = FakeRun(scratch)
    engine = TorchEngine(
        CPU,
        NextToken(model),
        for_pretraining(model, settings, CPU),
        seed=3,
        precision=Precision("fp32", None),
        compiles=True,
        say=run.log,
    )
    schedule = functools.partial(wsd, warmup_steps=2, stable_steps=steps - steps // 2, decay_steps=steps // 2)
    task = Task(batches, batches, 8, 3, steps, schedule, {"shape": "tiny"}, section="pretrain")
    return Trainer(run, engine, settings, guards, task, Meter(CPU, flops_per_token=None))


def weights(run: Trainer) -> dict[str, np.ndarray]:
    return run._engine.state().model


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_it_learns_to_count(tmp_path: Path) -> None:
    history = trainer(tmp_path, steps=60).fit()
    assert history.train[0]["loss"] == pytest.approx(np.log(CONFIG.vocab_size), abs=0.2)
    assert history.val[-1]["loss"] < 0.5


@pytest.mark.parametrize(
    ("stop_at", "number", "optimizer"),
    [(5, signal.SIGTERM, "muon"), (7, signal.SIGINT, "adamw"), (19, signal.SIGTERM, "muon")],
)
def test_a_stopped_run_ends_in_the_same_bits(
    tmp_path: Path, stop_at: int, number: signal.Signals, optimizer: str
) -> None:
    whole = trainer(tmp_path / "whole", optimizer=optimizer)
    whole.fit()

    class Stops(Counting):
        calls = 0

        def rows(self, indices: np.ndarray) -> Batch:
            Stops.calls += 1
            if Stops.calls == stop_at:
                os.kill(os.getpid(), number)
            return super().rows(indices)

    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs this in the background
    with pytest.raises(SystemExit) as stopped:
        trainer(tmp_path / "stopped", Stops(), optimizer=optimizer).fit()
    assert stopped.value.code == 128 + number
    assert signal.getsignal(signal.SIGINT) is before
    resumed = trainer(tmp_path / "stopped", optimizer=optimizer)
    resumed.fit()
    assert any("continuing from step" in line for line in resumed._run.said)
    assert same(weights(whole), weights(resumed))
    assert whole.history == resumed.history
    assert whole.tokens == resumed.tokens


def test_three_checkpoints_are_kept_and_a_half_written_one_is_ignored(tmp_path: Path) -> None:
    trainer(tmp_path, steps=22).fit()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000015", "step-00000020"]
    (tmp_path / "writing").mkdir()
    (tmp_path / "writing" / "state.json").write_text('{"step": 21')
    again = trainer(tmp_path, steps=22)
    again._begin(None)
    assert again.step == 20


def test_optimizer_state_survives_a_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=5)
    run.fit()
    fresh = trainer(tmp_path, steps=5)
    fresh._begin(None)
    saved, restored = run._engine.state(), fresh._engine.state()
    assert "model.layers.0.mlp.up_proj.weight.momentum" in saved.optimizer
    assert "lm_head.weight.exp_avg_sq" in saved.optimizer
    assert all(same(one, other) for one, other in zip(saved, restored, strict=True))


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_accumulation_weighs_every_token_the_same(
    tmp_path: Path, micro_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversations of unequal length: averaging per micro-batch would weigh the short ones more."""
    random = np.random.default_rng(0)
    encoded = []
    for length in random.integers(4, 16, size=40):
        ids = random.integers(0, CONFIG.vocab_size, size=length).tolist()
        encoded.append((ids, [place > 1 for place in range(length)]))
    batches = Conversations(encoded, pad_token_id=0)
    rows = []
    for size in (micro_batch, 8):
        monkeypatch.setenv("SMELT_MICRO_BATCH", str(size))
        rows.append(trainer(tmp_path / str(size), batches, steps=1).fit().train[0])
    assert rows[0]["tokens"] == rows[1]["tokens"]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
    assert rows[0]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=1e-4)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    short, long = ([1, 2, 3, 4], [False, True, True, True]), (list(range(12)), [True] * 12)
    together = Conversations([short, long], pad_token_id=0)
    run = trainer(tmp_path, together)
    padded, alone = Batch(*(part[1:] for part in together.rows(np.array([0, 1])))), Conversations([short], 0)
    assert (padded.labels != IGNORED).sum() == 3
    assert run._engine.loss_sum(padded) == pytest.approx(run._engine.loss_sum(alone.rows(np.array([0]))), rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with torch.no_grad():
        run._engine._raw.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(SmeltError, match=r"(?s)4 of the last 16 steps.*loss nan.*from the first step.*learning_rate"):
        run.fit()
