"""The training loop: one for pretraining, its decay and fine-tuning, on any engine.

It is a function of its arguments and of the step alone. Killed at any moment, it continues from its last checkpoint to
the same weights, bit for bit, on the same kind of machine.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lib.params.training import Guards, Optimization
from lib.pipeline.run import Run
from lib.trainers import processes
from lib.trainers.checkpoints import Record, Store, check_identity
from lib.trainers.early_stopping import EarlyStopping
from lib.trainers.engine import Engine, State
from lib.trainers.guards import Guard, Verdict
from lib.trainers.live import History, Meter, Row, View
from lib.trainers.loader import IGNORED, Batch, Batches, Prefetch
from lib.trainers.text import Sampler


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
    section: str  # of params.yaml, for advice
    measure: Callable[[Engine, Batch], Row] | None = None  # `loss` and more of rows held out; None: the loss alone
    token_bytes: np.ndarray | None = None  # (V,) for bits per byte
    sampler: Sampler | None = None
    patience: int | None = None  # so many validations without a better one end the run, and the best is kept


class Trainer:
    """Trains the model of an engine.

    Attributes:
        step: how many steps are done.
        tokens: how many tokens they learnt from.
        kept: the validation of the weights that are left in the end.
    """

    def __init__(
        self, run: Run, engine: Engine, settings: Optimization, guards: Guards, task: Task, meter: Meter
    ) -> None:
        self._run, self._engine, self._settings, self._task, self._meter = run, engine, settings, task, meter
        self._guard = Guard(guards, settings.warmup_steps, task.section)
        self._keeps_start = guards.action == "rollback"
        self._store = Store(run.scratch, settings.checkpoint_every)
        self.step = self.tokens = 0
        self._passed_over = 0  # batches that roll-backs left out
        self._stopping = EarlyStopping(task.patience)
        self.history = History()
        self.kept: Row = {}

    def fit(self, start: Callable[[], tuple[State, Record]] | None = None) -> History:
        """Train to the horizon, from the newest checkpoint of this run, else from `start`, else from nothing.

        Raises:
            SmeltError: there was too much trouble on the way, or a checkpoint is of another configuration.
            SystemExit: SIGTERM or SIGINT came; a checkpoint was saved.
        """
        self._begin(start)
        with View(self._run, self._engine, self._meter, self.step, self._task.steps) as view, _signals() as received:
            try:
                while self.step < self._task.steps and not self._stopping.stops:
                    with self._batches() as batches:
                        self._train(batches, view, received)
            except Exception:
                if not received:
                    raise
                # Ctrl-C reaches the compilers, too, that torch.compile started.
                self._run.log(f"interrupted in step {self.step}; the same command continues from the last checkpoint")
                raise SystemExit(128 + received[0]) from None
            self._store.wait()
            return self._finish(view)

    def _train(self, batches: Prefetch, view: View, received: list[int]) -> None:
        """Step after step, to the horizon or to a roll-back."""
        engine, settings, task = self._engine, self._settings, self._task
        stalled = 0.0
        for number, batch in batches:
            began = time.perf_counter()

            # Every token weighs the same, however the batch is cut: the sum is divided by the tokens of the whole
            # batch, not by those of each micro-batch (https://github.com/huggingface/transformers/pull/34191).
            tokens = int((batch.labels != IGNORED).sum())
            loss = engine.gradient(batch, batch.counted)
            norm = engine.clip(settings.clip_norm)

            verdict = self._guard.judge(number, loss, norm)
            if verdict is Verdict.APPLY:
                factor = task.schedule(self.step)
                engine.update(factor)
                self.tokens += tokens
                self.history.last = {
                    "step": self.step + 1,
                    "tokens": self.tokens,
                    "loss": loss,
                    "learning_rate": settings.learning_rate * factor,
                    "gradient_norm": norm,
                }
            else:
                engine.discard()
                self._run.log(f"step {self.step}: {self._guard.trouble}")
                if verdict is Verdict.ROLL_BACK:
                    return self._roll_back()
            self.step += 1

            view.step(self.step, loss, tokens, time.perf_counter() - began, batches.stall_seconds - stalled)
            stalled = batches.stall_seconds
            self._look(view)
            self._keep(received)
            if self._stopping.stops:
                self._run.log(f"stopped at step {self.step}: no better validation loss in {task.patience} of them")
                return None
        return None

    def _look(self, view: View) -> None:
        """Now and then: the loss, the loss on what is held out, and what the model writes."""
        history, settings, task = self.history, self._settings, self._task
        if self.step % settings.log_every == 0 and history.last and history.last["step"] == self.step:
            history.train.append(history.last)
            view.record("train", history.last)
        if self.step % settings.validate_every == 0:
            self._validated(history, view)
        if task.sampler and self.step % task.sampler.every == 0:
            samples = task.sampler(self._engine)
            view.sampled(self.step, samples, task.sampler.asks)
            for sample in samples:
                history.samples.append({"step": self.step, **sample})
                self._run.log(f"step {self.step}: {sample['prompt']} | {sample['text']}")
        doubt = self._guard.check_fall(last=self.step == task.steps or self._stopping.stops)
        if doubt:
            self._run.log(doubt)

    def _keep(self, received: list[int]) -> None:
        """Save a checkpoint when it is time, and when a signal says to stop."""
        stop = processes.largest(max(received, default=0))  # whichever process it reached
        if self.step % self._settings.checkpoint_every == 0 or stop:
            self._save()
        if stop:
            self._store.wait()
            name = signal.Signals(stop).name
            self._run.log(f"stopped by {name} at step {self.step}; the same command continues from there")
            raise SystemExit(128 + stop)

    def _save(self) -> None:
        state, record = self.checkpoint()
        if not self._run.follows:
            self._store.save(state, record)

    def validate(self) -> tuple[float, float | None]:
        """The loss per token in nats, and bits per byte of text, over the first rows of the validation split."""
        task, batch = self._task, self._held_out()
        kept = batch.labels[batch.labels != IGNORED]
        nats = self._engine.loss_sum(batch)
        text_bytes = int(task.token_bytes[kept].sum()) if task.token_bytes is not None else 0
        return nats / max(batch.counted, 1), nats / math.log(2) / text_bytes if text_bytes else None

    def report(self) -> dict[str, Any]:
        """What the metrics say of the run."""
        kept = {"kept_step": self._stopping.step} if self._stopping.watches else {}
        return {"tokens": self.tokens, "steps": self.step, **kept, "guards": self._guard.report()}

    # -- going on

    def checkpoint(self) -> tuple[State, Record]:
        """All that is needed to go on from here."""
        record = {
            "step": self.step,
            "tokens": self.tokens,
            "passed_over": self._passed_over,
            "guard": self._guard.state(),
            "history": asdict(self.history),
            "identity": self._task.identity,
        }
        if stopping := self._stopping.state():
            record["stopping"] = stopping
        return self._engine.state()._replace(best=self._stopping.weights), record

    def finish(self) -> None:
        """After the last use of the engine: what was trained is in the first process's model, and that one is alone."""
        self._engine.finish()

    def _begin(self, start: Callable[[], tuple[State, Record]] | None) -> None:
        state, record = processes.first_reads(lambda: self._store.newest(self._run.log))
        found = record is not None
        if found:
            self._load(state, record)
            self._run.log(f"continuing from step {self.step} of {self._task.steps}")
        elif start:
            self._load(*processes.first_reads(start))
        if self._keeps_start and not found:
            self._save()

    def _load(self, state: State | None, record: Record) -> None:
        check_identity(record, self._task.identity, f"the checkpoint of step {record['step']}")
        self._engine.load(state)
        self._guard.load(record["guard"])
        self._passed_over = record["passed_over"]
        self._go_to(state, record)

    def _go_to(self, state: State | None, record: Record) -> None:
        self.step, self.tokens, self.history = record["step"], record["tokens"], History(**record["history"])
        self._stopping.load(record.get("stopping"), state.best if state else {})

    def _roll_back(self) -> None:
        """To the last regular checkpoint, and from there on with the batches after this one."""
        self._store.wait()
        state, record = processes.first_reads(lambda: self._store.back(self._run.log))
        self._engine.load(state)
        self._guard.roll_back(record["guard"])
        self._passed_over += self.step + 1 - record["step"]
        self._run.log(f"rolled back from step {self.step} to {record['step']}")
        self._go_to(state, record)

    def _batches(self) -> Prefetch:
        task, first = self._task, self.step + self._passed_over
        return Prefetch(task.train, task.seed, task.batch_rows, first, task.steps + self._passed_over)

    # -- looking back

    def _validated(self, history: History, view: View) -> None:
        history.val.append(self._validation())
        view.record("val", history.val[-1])
        self._stopping.note(self.step, history.val[-1]["loss"], lambda: self._engine.state().model)

    def _validation(self) -> Row:
        row = {"step": self.step, "tokens": self.tokens}
        if self._task.measure:
            return row | self._task.measure(self._engine, self._held_out())
        loss, bits = self.validate()
        row["loss"] = loss
        return row if bits is None else {**row, "bits_per_byte": bits}

    def _held_out(self) -> Batch:
        return self._task.val.rows(np.arange(min(self._settings.validate_rows, len(self._task.val))))

    def _finish(self, view: View) -> History:
        """The history with the last step in it. That of a checkpoint holds regular steps alone, so that a run that was
        extended equals one that was longer at once."""
        history = History(**asdict(self.history))
        if history.last and history.last not in history.train:
            history.train.append(history.last)
            view.record("train", history.last)
        if not history.val or history.val[-1]["step"] < self.step:
            self._validated(history, view)
        self.kept = next((row for row in history.val if row["step"] == self._stopping.step), history.val[-1])
        self._take_best()
        return history

    def _take_best(self) -> None:
        """With patience, the model is that of the best validation."""
        best = self._stopping
        if best.watches and best.step != self.step:
            self._run.log(f"keeping the weights of step {best.step}, whose validation loss was the lowest")
            state = self._engine.state()
            self._engine.load(None if processes.rank() else state._replace(model=best.weights))


@contextmanager
def _signals() -> Iterator[list[int]]:
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
