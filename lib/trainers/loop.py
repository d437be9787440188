"""The training loop: one for pretraining, its decay and fine-tuning, on any engine.

It is a function of its arguments and of the step alone. Killed at any moment, it continues from its last checkpoint to
the same weights, bit for bit, on the same kind of machine.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from lib.params.training import Optimization
from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run
from lib.trainers import processes
from lib.trainers.checkpoints import Record, Store, check_identity
from lib.trainers.engine import Engine, State
from lib.trainers.loader import IGNORED, Batches, batch_indices


@dataclass
class History:
    """What happened, as rows of the CSV files of the report. It travels in the checkpoint."""

    train: list[dict[str, float]] = field(default_factory=list)  # step, tokens, loss, learning_rate, gradient_norm
    val: list[dict[str, float]] = field(default_factory=list)  # step, tokens, loss
    last: dict[str, float] | None = None  # the last step's row, regular or not

    def write(self, run: Run) -> None:
        folder = run.reports.relative_to(run.root)
        for name, rows, columns in (
            ("train", self.train, ("step", "tokens", "loss", "learning_rate", "gradient_norm")),
            ("val", self.val, ("step", "tokens", "loss")),
        ):
            lines = [",".join(columns), *(",".join(f"{row[column]:.6g}" for column in columns) for row in rows)]
            run.out(f"{folder}/{name}.csv").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Task:
    """What to train on and how far."""

    train: Batches
    val: Batches
    batch_rows: int  # rows of one optimizer step
    seed: int  # of the order of the rows
    steps: int  # train until so many are done
    schedule: Callable[[int], float]  # step -> factor on the peak rates
    identity: dict[str, Any]  # what a checkpoint has to agree with: shape, seed, data


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT become entries of a list, which the loop sees between two steps; a second one acts at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains the model of an engine."""

    def __init__(self, run: Run, engine: Engine, settings: Optimization, task: Task) -> None:
        self._run, self._engine, self._settings, self._task = run, engine, settings, task
        self._store = Store(run.scratch, settings.checkpoint_every)
        self.step = self.tokens = 0
        self.history = History()

    def fit(self, start: tuple[State, Record] | None = None) -> History:
        """Train to the horizon, from the newest checkpoint of this run, else from `start`, else from nothing.

        Raises:
            SmeltError: the loss is not finite, or the checkpoint is of another configuration.
            SystemExit: SIGTERM or SIGINT came; a checkpoint was saved.
        """
        self._begin(start)
        steps, settings = self._task.steps, self._settings
        started, tokens_before = time.perf_counter(), self.tokens
        watched = sys.stderr.isatty()
        bar = tqdm(total=steps, initial=self.step, desc=self._run.id, unit="step", disable=self._run.follows,
                   mininterval=0.5 if watched else 20, dynamic_ncols=watched, leave=watched)  # fmt: skip
        with bar, _stop_signals() as received:
            while self.step < steps:
                row = self._advance()
                rate = (self.tokens - tokens_before) / (time.perf_counter() - started)
                bar.set_postfix_str(f"loss {row['loss']:.3f}, {rate:,.0f} tokens/s", refresh=False)
                bar.update()
                if self.step % settings.log_every == 0:
                    self.history.train.append(row)
                if self.step % settings.validate_every == 0:
                    self.history.val.append(self._validation())
                stop = processes.largest(max(received, default=0))  # whichever process the signal reached
                if self.step % settings.checkpoint_every == 0 or stop:
                    self._save()
                if stop:
                    self._store.wait()
                    name = signal.Signals(stop).name
                    self._run.log(f"stopped by {name} at step {self.step}; the same command continues from there")
                    raise SystemExit(128 + stop)
        self._store.wait()
        if self.tokens > tokens_before:
            seconds = time.perf_counter() - started
            self._run.observed["tokens_per_second"] = round((self.tokens - tokens_before) / seconds, 1)
        return self._finished()

    def validate(self) -> float:
        """Mean loss per token, in nats, over the first rows of the validation split."""
        batch = self._task.val.rows(np.arange(min(self._settings.validate_rows, len(self._task.val))))
        return self._engine.loss_sum(batch) / max(int((batch.labels != IGNORED).sum()), 1)

    def checkpoint(self) -> tuple[State, Record]:
        """All that is needed to go on from here."""
        record = {
            "step": self.step,
            "tokens": self.tokens,
            "history": asdict(self.history),
            "identity": self._task.identity,
        }
        return self._engine.state(), record

    def finish(self) -> None:
        """After training: what was trained is in the first process's model, and this run has no other process."""
        self._engine.finish()

    def _save(self) -> None:
        state, record = self.checkpoint()
        if not self._run.follows:
            self._store.save(state, record)

    def _begin(self, start: tuple[State, Record] | None) -> None:
        found = None if self._run.follows else self._store.newest(self._run.log)
        again = processes.tell(found is not None)
        if again or start:
            state, record = found or (start if not again else (None, None))
            record = processes.tell(record)
            check_identity(record, self._task.identity, f"the checkpoint of step {record['step']}")
            self._engine.load(state)
            self.step, self.tokens = record["step"], record["tokens"]
            self.history = History(**record["history"])
        if again:
            self._run.log(f"continuing from step {self.step} of {self._task.steps}")

    def _advance(self) -> dict[str, float]:
        """One optimizer step, and its row of the history."""
        task, settings = self._task, self._settings
        batch = task.train.rows(batch_indices(task.seed, self.step, task.batch_rows, len(task.train)))
        # Every token weighs the same, however the batch is cut: the sum is divided by the tokens of the whole batch,
        # not by those of each micro-batch (https://github.com/huggingface/transformers/pull/34191).
        counted = int((batch.labels != IGNORED).sum())
        loss = self._engine.gradient(batch, counted)
        norm = self._engine.clip(settings.clip_norm)
        if not np.isfinite(loss) or not np.isfinite(norm):
            raise SmeltError(
                f"the loss is not finite at step {self.step} (loss {loss}, gradient norm {norm}); "
                f"lower {self._run.name}.learning_rate or lengthen {self._run.name}.warmup_steps"
            )
        factor = task.schedule(self.step)
        self._engine.update(factor)
        self.step += 1
        self.tokens += counted
        self.history.last = {
            "step": self.step, "tokens": self.tokens, "loss": loss,
            "learning_rate": settings.learning_rate * factor, "gradient_norm": norm,
        }  # fmt: skip
        return self.history.last

    def _validation(self) -> dict[str, float]:
        return {"step": self.step, "tokens": self.tokens, "loss": self.validate()}

    def _finished(self) -> History:
        """The history with the last step in it. That of a checkpoint holds regular steps alone, so that a run that was
        extended equals one that was longer at once."""
        train, val, last = list(self.history.train), list(self.history.val), self.history.last
        if last and last not in train:
            train.append(last)
        if not val or val[-1]["step"] < self.step:
            val.append(self._validation())
        return History(train, val)
