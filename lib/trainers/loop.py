"""The training loop: one for pretraining and fine-tuning, on accelerate.

It is a function of its arguments and of the step alone. Killed at any moment, it continues from its last checkpoint to
the same weights, bit for bit, on the same kind of machine.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from lib.backends.select import Backend
from lib.params.training import Optimization
from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run
from lib.trainers import checkpoints
from lib.trainers.loader import IGNORED, Batch, Batches, batch_indices
from lib.trainers.objectives import Forward, cross_entropy_sum
from lib.trainers.optimizers import set_rates
from lib.trainers.schedules import schedule


@dataclass
class History:
    """What happened, as rows of the CSV files of the report. It travels in the checkpoint."""

    train: list[dict[str, float]] = field(default_factory=list)  # step, tokens, loss, learning_rate, gradient_norm
    val: list[dict[str, float]] = field(default_factory=list)  # step, tokens, loss

    def write(self, run: Run) -> None:
        folder = run.reports.relative_to(run.root)
        for name, rows, columns in (
            ("train", self.train, ("step", "tokens", "loss", "learning_rate", "gradient_norm")),
            ("val", self.val, ("step", "tokens", "loss")),
        ):
            lines = [",".join(columns), *(",".join(f"{row[column]:.6g}" for column in columns) for row in rows)]
            run.out(f"{folder}/{name}.csv").write_text("\n".join(lines) + "\n")


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Turn SIGTERM into an entry of a list, for the loop to see between two steps."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


class Trainer:
    """Trains `model` in place.

    Args:
        forward: how to get logits from the model.
        steps: the horizon, in optimizer steps of `batch_rows` rows each.
    """

    def __init__(
        self,
        run: Run,
        backend: Backend,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        forward: Forward,
        settings: Optimization,
        train: Batches,
        val: Batches,
        steps: int,
        batch_rows: int,
        seed: int,
    ) -> None:
        self._run, self._settings, self._forward = run, settings, forward
        self._train, self._val, self._steps, self._batch_rows, self._seed = train, val, steps, batch_rows, seed
        decay_steps = round(steps * settings.decay_fraction)
        self._schedule = schedule(settings.schedule, settings.warmup_steps, steps - decay_steps, decay_steps)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
        self._accelerator = Accelerator(
            cpu=backend.name == "cpu", mixed_precision="bf16" if backend.bf16 else "no", rng_types=[]
        )
        self._model, *self._optimizers = self._accelerator.prepare(model, *optimizers)
        self.history = History()
        self.tokens = 0
        run.observed["device"] = backend.describe()

    def fit(self) -> History:
        """Train to the horizon.

        Raises:
            SmeltError: the loss is not finite.
            SystemExit: SIGTERM came; a checkpoint was saved.
        """
        folder = self._run.scratch
        step = self._restore(folder)
        started, first, tokens_before = time.perf_counter(), step, self.tokens
        watched = sys.stderr.isatty()
        bar = tqdm(total=self._steps, initial=step, desc=self._run.id, unit="step", disable=None if watched else False,
                   mininterval=0.5 if watched else 20, dynamic_ncols=watched, leave=watched)  # fmt: skip
        with bar, _termination() as received:
            while step < self._steps:
                row = self._step(step)
                step += 1
                rate = (self.tokens - tokens_before) / (time.perf_counter() - started)
                bar.set_postfix_str(f"loss {row['loss']:.3f}, {rate:,.0f} tokens/s", refresh=False)
                bar.update()
                if step % self._settings.log_every == 0 or step == self._steps:
                    self.history.train.append({"step": step, "tokens": self.tokens, **row})
                if step % self._settings.validate_every == 0 or step == self._steps:
                    self.history.val.append({"step": step, "tokens": self.tokens, "loss": self.validate()})
                if step % self._settings.checkpoint_every == 0 or received:
                    self._save(folder, step)
                if received:
                    self._run.log(f"stopped by SIGTERM at step {step}; the same command continues from there")
                    raise SystemExit(128 + received[0])
        if step > first:
            seconds = time.perf_counter() - started
            self._run.observed["tokens_per_second"] = round((self.tokens - tokens_before) / seconds, 1)
        return self.history

    def _batch(self, step: int) -> Batch:
        return self._train.rows(batch_indices(self._seed, step, self._batch_rows, len(self._train)))

    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step; its loss per token and the norm of its gradient before clipping."""
        factor = self._schedule(step)
        set_rates(self._optimizers, factor)
        inputs, labels = self._batch(step)
        # Every token weighs the same, however the batch is cut: the sum is divided by the tokens of the whole batch,
        # not by those of each micro-batch (https://github.com/huggingface/transformers/pull/34191).
        counted = int((labels != IGNORED).sum())
        total = 0.0
        for piece in self._micro_batches(inputs, labels):
            loss = self._loss_sum(*piece) / max(counted, 1)
            self._accelerator.backward(loss)
            total += loss.item()
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), self._settings.clip_norm).item()
        if not np.isfinite(total) or not np.isfinite(norm):
            raise SmeltError(
                f"the loss is not finite at step {step} (loss {total}, gradient norm {norm}); "
                f"lower {self._run.name}.learning_rate or lengthen {self._run.name}.warmup_steps"
            )
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.tokens += counted
        return {"loss": total, "learning_rate": self._settings.learning_rate * factor, "gradient_norm": norm}

    def _micro_batches(self, inputs: np.ndarray, labels: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device = self._accelerator.device
        for start in range(0, len(inputs), self._settings.micro_batch):
            rows = slice(start, start + self._settings.micro_batch)
            # Columns that only hold padding are cut off; of packed rows there are none.
            length = int((labels[rows] != IGNORED).any(axis=0).nonzero()[0].max(initial=0)) + 1
            yield (
                torch.from_numpy(inputs[rows, :length]).to(device),
                torch.from_numpy(labels[rows, :length]).to(device),
            )

    def _loss_sum(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        keep = labels != IGNORED
        with self._accelerator.autocast():
            logits = self._forward(self._model, inputs, keep)
        return cross_entropy_sum(logits, labels[keep])

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss per token, in nats, over the first rows of the validation split."""
        self._model.eval()
        inputs, labels = self._val.rows(np.arange(min(self._settings.validate_rows, len(self._val))))
        total = sum(self._loss_sum(*piece).item() for piece in self._micro_batches(inputs, labels))
        self._model.train()
        return total / max(int((labels != IGNORED).sum()), 1)

    def _unwrapped(self) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        optimizers = [optimizer.optimizer for optimizer in self._optimizers]
        return self._accelerator.unwrap_model(self._model), optimizers

    def _save(self, folder: Path, step: int) -> None:
        state: dict[str, Any] = {"tokens": self.tokens, "train": self.history.train, "val": self.history.val}
        checkpoints.save(folder, step, *self._unwrapped(), state)

    def _restore(self, folder: Path) -> int:
        state = checkpoints.restore(folder, *self._unwrapped())
        if state is None:
            return 0
        self.tokens, self.history = state["tokens"], History(state["train"], state["val"])
        self._run.log(f"continuing from step {state['step']} of {self._steps}")
        return state["step"]
