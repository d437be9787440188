"""Learning-rate schedules, as a factor on the peak rate."""

from __future__ import annotations


def wsd(step: int, steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """Warm-up, stable, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395): linear up, flat, linear to zero.

    Args:
        step: the step about to be taken, from 0.
        steps: the horizon.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    decay_steps = max(1, round(steps * decay_fraction))
    return min(1.0, (steps - step) / decay_steps)
