"""AdamW and Muon for MLX: the arithmetic, the groups and the names of the states of lib/trainers/optimizers.py.

MLX has optimizers of its own, with other states under other names: a run that torch began could not go on in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from lib.params.training import Pretrain
from lib.pipeline.errors import SmeltError
from lib.trainers.optimizers import _COEFFICIENTS, _ITERATIONS

EPS = 1e-8  # torch's, of AdamW

State = dict[str, mx.array]


class Rule(NamedTuple):
    """How one weight is trained."""

    muon: bool  # or AdamW
    peak: float  # rate that the schedule scales
    weight_decay: float


def rules(shapes: dict[str, tuple[int, ...]], settings: Pretrain) -> dict[str, Rule]:
    """The optimizer of the settings for the matrices of the blocks; AdamW for embedding, head and norms.

    Raises:
        SmeltError: MLX has no such optimizer here.
    """
    if settings.optimizer not in ("muon", "adamw"):
        raise SmeltError(f"pretrain.optimizer is {settings.optimizer}; with SMELT_DEVICE=mlx there are muon and adamw")

    def rule(name: str, shape: tuple[int, ...]) -> Rule:
        if "embed_tokens" in name:
            return Rule(False, settings.embedding_learning_rate, 0.0)
        if len(shape) < 2 or name.startswith("lm_head"):
            return Rule(False, settings.head_learning_rate, 0.0)
        return Rule(settings.optimizer == "muon", settings.learning_rate, settings.weight_decay)

    return {name: rule(name, shape) for name, shape in shapes.items()}


def orthogonalise(x_KMN: mx.array) -> mx.array:
    """As in lib/trainers/optimizers.py, of matrices with a Frobenius norm of 1, or 0."""
    wide_KMN = x_KMN.swapaxes(1, 2) if x_KMN.shape[1] > x_KMN.shape[2] else x_KMN
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram_KMM = wide_KMN @ wide_KMN.swapaxes(1, 2)
        wide_KMN = a * wide_KMN + (b * gram_KMM + c * gram_KMM @ gram_KMM) @ wide_KMN
    return wide_KMN.swapaxes(1, 2) if x_KMN.shape[1] > x_KMN.shape[2] else wide_KMN


class Optimizer:
    """Updates weights by name.

    Args:
        settings: betas and the optimizer's other numbers.
        momentum: Muon's.
    """

    def __init__(self, rules: dict[str, Rule], settings: Pretrain, momentum: float = 0.95) -> None:
        self._rules, self._settings, self._momentum = rules, settings, momentum
        self.state: dict[str, State] = {}

    def update(self, weights: State, gradients: State, factor: float) -> State:
        """New weights, and new states; `factor` is the schedule's on every peak rate."""
        updated = {
            name: self._adamw(name, weight, gradients[name], self._rules[name], factor)
            for name, weight in weights.items()
            if not self._rules[name].muon
        }
        for names in self._alike(weights):
            updated |= self._muon(names, weights, gradients, factor)
        return {name: updated[name] for name in weights}

    def _adamw(self, name: str, weight: mx.array, gradient: mx.array, rule: Rule, factor: float) -> mx.array:
        first, second = self._settings.betas
        state = self.state.get(name) or {
            "step": mx.array(0.0), "exp_avg": mx.zeros_like(weight), "exp_avg_sq": mx.zeros_like(weight)
        }  # fmt: skip
        average = state["exp_avg"] + (1 - first) * (gradient - state["exp_avg"])
        square = second * state["exp_avg_sq"] + (1 - second) * gradient * gradient
        step = int(state["step"].item()) + 1
        self.state[name] = {"step": mx.array(float(step)), "exp_avg": average, "exp_avg_sq": square}
        rate = rule.peak * factor
        denominator = mx.sqrt(square) / math.sqrt(1 - second**step) + EPS
        return weight * (1 - rate * rule.weight_decay) - rate / (1 - first**step) * average / denominator

    def _alike(self, weights: State) -> Iterator[list[str]]:
        """Names of Muon's matrices, those of one shape together."""
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            if self._rules[name].muon:
                shapes.setdefault(weight.shape, []).append(name)
        yield from shapes.values()

    def _muon(self, names: list[str], weights: State, gradients: State, factor: float) -> State:
        averages = []
        for name in names:
            state = self.state.get(name) or {"momentum": mx.zeros_like(weights[name])}
            average = state["momentum"] + (1 - self._momentum) * (gradients[name] - state["momentum"])
            self.state[name] = {"momentum": average}
            averages.append(average)
        x_KMN = mx.stack(
            [g + self._momentum * (m - g) for g, m in zip((gradients[name] for name in names), averages, strict=True)]
        )
        norms_K11 = mx.sqrt((x_KMN * x_KMN).sum(axis=(1, 2), keepdims=True))
        x_KMN = orthogonalise(x_KMN / (norms_K11 + 1e-7))
        rule = self._rules[names[0]]
        rate = rule.peak * factor
        scale = rate * math.sqrt(max(1.0, x_KMN.shape[1] / x_KMN.shape[2]))
        return {
            name: weights[name] * (1 - rate * rule.weight_decay) - scale * update
            for name, update in zip(names, x_KMN, strict=True)
        }
