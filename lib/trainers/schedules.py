"""Learning-rate schedules, as a factor on the peak rate. Pure functions of the step and the horizon.

A run is `stable_steps`, the warm-up among them, and then `decay_steps`. With WSD one stable run serves decays of any
length, and goes on to a longer one. Cosine and constant know their horizon from the start: all of it is one part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

Kind = Literal["wsd", "cosine", "constant"]


def warmup(step: int, warmup_steps: int) -> float:
    """Linear from near zero, 1 at and after `warmup_steps`.

    Args:
        step: the step about to be taken, from 0.
    """
    return min(1.0, (step + 1) / (warmup_steps + 1))


def wsd(step: int, warmup_steps: int, stable_steps: int, decay_steps: int) -> float:
    """Warm-up, stable, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395): linear up, flat, linear to zero.

    The first step of the decay has the whole rate, the one after the last would have none.
    """
    if step < stable_steps:
        return warmup(step, warmup_steps)
    return warmup(step, warmup_steps) * max(0, stable_steps + decay_steps - step) / max(1, decay_steps)


def cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Linear up, then half a cosine to zero (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return (1 + math.cos(math.pi * done)) / 2


def decay_steps(kind: Kind, stable_steps: int, fraction: float) -> int:
    """The steps of a decay that takes `fraction` (0 to below 1) of the whole horizon: none of schedules but WSD."""
    return round(stable_steps * fraction / (1 - fraction)) if kind == "wsd" else 0


def schedule(kind: Kind, warmup_steps: int, stable_steps: int, decay_steps: int) -> Callable[[int], float]:
    """The factor by step, from 0, of a run of so many steps."""
    if kind == "wsd":
        return functools.partial(wsd, warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    if kind == "cosine":
        return functools.partial(cosine, warmup_steps=warmup_steps, steps=stable_steps + decay_steps)
    return functools.partial(warmup, warmup_steps=warmup_steps)
