"""Early stopping on the validation loss (Prechelt 1998, https://doi.org/10.1007/3-540-49430-8_3): the best is kept.

What is decided depends on the losses alone, which are those of all processes together, so that all decide alike; the
weights are with the first process. Both travel in the checkpoint: a run that was killed stops where another would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


class EarlyStopping:
    """Watches the validation loss of one run.

    Args:
        patience: so many validations in a row without a better loss end the run. None: never, and nothing is kept.

    Attributes:
        step: of the best validation so far; None before the first.
        weights: what was trained, as it was there. Empty in processes that follow.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self.step: int | None = None
        self._loss, self._waited = float("inf"), 0
        self.weights: Weights = {}

    @property
    def watches(self) -> bool:
        return self._patience is not None

    @property
    def stops(self) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and self._waited >= self._patience

    def note(self, step: int, loss: float, weights: Callable[[], Weights]) -> None:
        """A validation at `step` gave `loss`. `weights` is asked for where it is the best yet, in all processes."""
        if not self.watches:
            return
        if loss < self._loss:
            self.step, self._loss, self._waited = step, loss, 0
            self.weights = weights()
        else:
            self._waited += 1

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint's record holds of it; its weights are beside the others."""
        return {"step": self.step, "loss": self._loss, "waited": self._waited} if self.step is not None else None

    def load(self, state: dict[str, Any] | None, weights: Weights) -> None:
        """Go on from there. None: from nothing."""
        known = state or {"step": None, "loss": float("inf"), "waited": 0}
        self.step, self._loss, self._waited = known["step"], known["loss"], known["waited"]
        self.weights = weights
