"""Learning-rate schedules, as a factor on the peak rate."""

from __future__ import annotations


def wsd(step: int, warmup_steps: int, stable_steps: int, decay_steps: int) -> float:
    """Warm-up, stable, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395): linear up, flat, linear to zero.

    Args:
        step: the step about to be taken, from 0.
        stable_steps: when the decay begins; the warm-up is among them.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return min(1.0, (stable_steps + decay_steps - step) / max(1, decay_steps))


def decay_steps(stable_steps: int, fraction: float) -> int:
    """The steps of a decay that takes `fraction` (0 to below 1) of the whole horizon."""
    return round(stable_steps * fraction / (1 - fraction))
