"""What a run shows while it runs, and the history that it leaves: a progress line, CSV files, records for sinks."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from tqdm import tqdm

from lib.backends.backend import Backend
from lib.pipeline.run import Run
from lib.trainers import processes
from lib.trainers.engine import Engine
from lib.trainers.grading import Grader
from lib.trainers.sinks import Sinks

Row = dict[str, float]
_RECENT = 50  # steps that the rate shown is of: the first ones, which compile, are soon forgotten


@dataclass
class History:
    """What happened, as rows of the CSV files. It travels in the checkpoint."""

    train: list[Row] = field(default_factory=list)  # step, tokens, loss, learning_rate, gradient_norm
    val: list[Row] = field(default_factory=list)  # step, tokens, loss and perhaps bits_per_byte
    samples: list[dict[str, Any]] = field(default_factory=list)  # step, prompt, text
    last: Row | None = None  # of the last update, logged or not

    def write(self, run: Run) -> None:
        """train.csv and val.csv into the stage's reports, for DVC's plots."""
        folder = run.reports.relative_to(run.root)
        for name, rows in (("train", self.train), ("val", self.val)):
            columns = list(rows[0]) if rows else ["step", "tokens", "loss"]
            lines = [",".join(columns), *(",".join(f"{row[column]:.6g}" for column in columns) for row in rows)]
            run.out(f"{folder}/{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Meter:
    """What the device can do and what it draws.

    Args:
        flops_per_token: of training; None where it is unknown, and then so is the utilisation.
        precision: of the products, by which the peak is measured.
    """

    def __init__(self, backend: Backend, flops_per_token: float | None, precision: str = "fp32") -> None:
        self._backend, self._flops = backend, flops_per_token
        # One process measures: on a processor, several would take it from each other.
        measures = flops_per_token and not processes.rank()
        self._peak = backend.peak_flops(precision) if measures else None
        self._watts: list[float] = []

    def describe(self) -> str:
        return self._backend.describe()

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilisation: of the measured peak (Chowdhery et al. 2022, appendix B)."""
        return self._flops * tokens_per_second / (self._peak * processes.count()) if self._peak else None

    def watts(self) -> float | None:
        """What is drawn now."""
        watts = self._backend.watts()
        if watts is not None:
            self._watts.append(watts)
        return watts

    def mean_watts(self) -> float | None:
        return statistics.fmean(self._watts) if self._watts else None


class View:
    """The progress line of one run, and what it observed of the machine in the end.

    pretrain: 30%|███       | 120/400 [01:10<02:44, 1.7step/s, loss 5.123, 14,210 tokens/s, MFU 61%, 312 MiB, 45 W, ...
    """

    def __init__(self, run: Run, engine: Engine, meter: Meter, first: int, steps: int) -> None:
        self._run, self._engine, self._meter, self._steps = run, engine, meter, steps
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)  # tokens and seconds of a step
        self._tokens, self._stalled, self._started = 0, 0.0, time.perf_counter()
        self._done, self._loss = first, 0.0
        watched = sys.stderr.isatty()
        self._interval = 0.5 if watched else 20
        self._bar = tqdm(
            total=steps, initial=first, desc=run.id, unit="step", disable=first >= steps or run.follows,
            mininterval=self._interval, maxinterval=self._interval, dynamic_ncols=watched, leave=False,
        )  # fmt: skip
        self._shown = self._started
        self._sinks = Sinks(run)
        self._grader = Grader(run, self._graded)

    def step(self, number: int, loss: float, tokens: int, seconds: float, stalled: float) -> None:
        """Step `number` is done: it took `seconds`, after it had to wait `stalled` for its batch."""
        self._recent.append((tokens, seconds + stalled))
        self._tokens += tokens
        self._stalled += stalled
        self._done, self._loss = number, loss
        now = time.perf_counter()
        if now - self._shown >= self._interval:
            self._shown = now
            self._bar.set_postfix_str(self._line(), refresh=False)
        self._bar.update(number - self._bar.n)  # which falls when the run is rolled back

    def _rate(self) -> float:
        tokens, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        return tokens / seconds

    def _line(self) -> str:
        rate = self._rate()
        mfu, watts, memory = self._meter.mfu(rate), self._meter.watts(), self._engine.memory_mib()
        stall = self._stalled / (time.perf_counter() - self._started)
        parts = [
            f"loss {self._loss:.3f}",
            f"{rate:,.0f} tokens/s",
            f"MFU {mfu:.0%}" if mfu is not None else None,
            f"{memory:,.0f} MiB",
            f"{watts:,.0f} W" if watts is not None else None,
            f"stall {stall:.1%}",
        ]
        return ", ".join(part for part in parts if part)

    def sampled(self, step: int, samples: list[dict[str, str]], asks: bool) -> None:
        """What the model wrote after `step`: prompt, text. A judge grades it, if one is asked for."""
        self._grader.send(step, samples, asks)

    def _graded(self, step: int, mean: float) -> None:
        self._sinks.log({"judge/grade": mean}, step)

    def record(self, kind: str, row: Row) -> None:
        """Send a row of the history to the sinks; `kind` is train or val."""
        self._sinks.log({f"{kind}/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        self._grader.close()
        self._sinks.close()
        if self._tokens:  # also for runs too short for a progress line
            self._run.log(f"step {self._done}/{self._steps}: {self._line()}")
        observed = self._run.observed
        observed["device"], observed["processes"] = self._meter.describe(), processes.count()
        if self._tokens:
            seconds = time.perf_counter() - self._started
            mfu, watts = self._meter.mfu(self._rate()), self._meter.mean_watts()
            observed["tokens_per_second"] = round(self._tokens / seconds, 1)
            observed["device_memory_mib"] = round(self._engine.memory_mib(), 1)
            observed["stall_share"] = round(self._stalled / seconds, 4)
            observed |= {"mfu": round(mfu, 4)} if mfu is not None else {}
            observed |= {"watts": round(watts, 1)} if watts is not None else {}
