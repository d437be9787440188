"""What keeps a run from being spoilt: steps that are not finite or stand out are left out, lasting trouble ends it.

The rule for what stands out is that of SkipStepOptimizer in OLMo-core (https://github.com/allenai/OLMo-core): a loss
or a gradient norm more than `sigma` standard deviations above their mean over the last `window` steps. Rolling back to
a checkpoint and passing over the batches since is PaLM's (https://arxiv.org/abs/2204.02311, section 5.1).

All that is remembered is in the checkpoint, and nothing depends on time: a run that is resumed decides the same.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections import deque
from typing import Any

from lib.params.training import Guards
from lib.pipeline.errors import SmeltError

FIRST = 8  # losses that say where the run began


class Verdict(enum.Enum):
    APPLY = enum.auto()  # the update
    SKIP = enum.auto()  # this step
    ROLL_BACK = enum.auto()  # to the last checkpoint, passing over all batches since


class Guard:
    """Judges every step of one run.

    Args:
        section: of params.yaml, for advice.
    """

    def __init__(self, settings: Guards, warmup_steps: int, section: str) -> None:
        self._settings, self._section = settings, section
        self._due = warmup_steps + settings.window  # good steps until the loss must have fallen
        self._good = 0
        self._first: list[float] = []
        self._losses: deque[float] = deque(maxlen=settings.window)
        self._norms: deque[float] = deque(maxlen=settings.window)
        self._trouble: list[tuple[int, str]] = []  # (number of the batch, what), of the last window
        self.counts = {"not_finite": 0, "spikes": 0, "roll_backs": 0}
        self.fell: bool | None = None  # whether the loss fell; None: too early to say
        self.trouble = ""  # the last of it, in words

    def judge(self, number: int, loss: float, norm: float) -> Verdict:
        """What to do with a step.

        Args:
            number: of the batch. It rises with every call.

        Raises:
            SmeltError: there was too much trouble; the message is the diagnosis.
        """
        if not math.isfinite(loss) or not math.isfinite(norm):
            return self._troubled(number, "not_finite", f"loss {loss:.4g}, gradient norm {norm:.4g}", Verdict.SKIP)
        for name, value, usual in (("loss", loss, self._losses), ("gradient norm", norm, self._norms)):
            if len(usual) == usual.maxlen:
                mean, deviation = statistics.fmean(usual), statistics.pstdev(usual)
                if value > mean + self._settings.sigma * deviation:
                    what = f"{name} {value:.4g}, where {mean:.4g} with a standard deviation of {deviation:.2g} is usual"
                    rolls = self._settings.action == "rollback"
                    return self._troubled(number, "spikes", what, Verdict.ROLL_BACK if rolls else Verdict.SKIP)
        if len(self._first) < FIRST:
            self._first.append(loss)
        self._losses.append(loss)
        self._norms.append(norm)
        self._good += 1
        return Verdict.APPLY

    def _troubled(self, number: int, kind: str, what: str, verdict: Verdict) -> Verdict:
        self.counts[kind] += 1
        self.counts["roll_backs"] += verdict is Verdict.ROLL_BACK
        recent = [entry for entry in self._trouble if entry[0] > number - self._settings.window]
        self._trouble = [*recent, (number, what)]
        self.trouble = f"{what}; {'rolling back' if verdict is Verdict.ROLL_BACK else 'left out'}"
        if len(self._trouble) >= self._settings.limit:
            raise SmeltError(self._diagnosis())
        return verdict

    def _diagnosis(self) -> str:
        """What happened, what it looks like, and what to change."""
        rows = [f"batch {number}: {what}" for number, what in self._trouble]
        shown = [*rows[:2], "...", rows[-1]] if len(rows) > 3 else rows
        of = self._section
        finite = all("nan" not in row and "inf" not in row for row in rows)
        if not self._good:
            cause = "it was so from the first step, so the rate is far too high, or weights or data are broken"
        elif self._due > self._good + self._settings.window:
            cause = "the warm-up was not over, so the rate rises too quickly or too high"
        elif finite:
            cause = "the steps are finite but far from usual, so the data changed, or the rate is at the edge"
        else:
            cause = "the run was well before, so it diverged: the rate is at the edge of what it can bear"
        return (
            f"{len(rows)} of the last {self._settings.window} steps were in trouble (guards.limit):\n"
            + "\n".join(f"  {row}" for row in shown)
            + f"\n{cause}. Lower {of}.learning_rate (half is a good first try) or {of}.clip_norm, lengthen "
            f"{of}.warmup_steps, or look at the documents of these batches"
        )

    def check_fall(self, last: bool) -> str | None:
        """Once, a window after the warm-up or at the `last` step: a line if the loss has not fallen since the start."""
        if self.fell is not None or (self._good < self._due and not last):
            return None
        fell = self._has_fallen()
        if self._good >= self._due:
            self.fell = fell
        if fell is not False:
            return None
        start, now = statistics.fmean(self._first), statistics.fmean(self._losses)
        return (
            f"the loss has not fallen: {start:.3f} in the first {FIRST} steps, {now:.3f} in the last "
            f"{len(self._losses)}. Raise {self._section}.learning_rate if it is small, lower it if the loss jumps, and "
            f"look at the documents"
        )

    def _has_fallen(self) -> bool | None:
        if len(self._losses) <= FIRST:
            return None
        # By more than the mean of so few losses may be off by chance.
        margin = 3 * statistics.pstdev(self._losses) / math.sqrt(FIRST)
        return statistics.fmean(self._first) - statistics.fmean(self._losses) > margin

    def report(self) -> dict[str, Any]:
        """For the metrics."""
        return {**self.counts, "loss_fell": self.fell if self.fell is not None else self._has_fallen()}

    def state(self) -> dict[str, Any]:
        """For the checkpoint, as JSON."""
        return {
            "usual": {"good": self._good, "first": list(self._first), "losses": list(self._losses),
                      "norms": list(self._norms)},
            "trouble": [list(entry) for entry in self._trouble],
            "counts": dict(self.counts),
            "fell": self.fell,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.roll_back(state)
        self._trouble = [(number, what) for number, what in state["trouble"]]
        self.counts, self.fell = dict(state["counts"]), state["fell"]

    def roll_back(self, state: dict[str, Any]) -> None:
        """Go back to what was usual in `state`, and forget no trouble."""
        usual = state["usual"]
        self._good, self._first = usual["good"], list(usual["first"])
        self._losses.clear()
        self._losses.extend(usual["losses"])
        self._norms.clear()
        self._norms.extend(usual["norms"])
