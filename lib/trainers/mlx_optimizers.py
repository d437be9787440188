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
from lib.trainers.muon import POLYNOMIALS

EPS = 1e-8  # torch's, of AdamW
TINY = 1.1754944e-38  # the smallest normal number of fp32

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


def orthogonalise(x_KMN: mx.array, iterations: int) -> mx.array:
    """As in lib/trainers/muon.py."""
    tall = x_KMN.shape[1] > x_KMN.shape[2]
    for a, b, c in POLYNOMIALS[iterations]:
        gram = x_KMN.swapaxes(1, 2) @ x_KMN if tall else x_KMN @ x_KMN.swapaxes(1, 2)
        polynomial = b * gram + c * (gram @ gram)
        x_KMN = a * x_KMN + (x_KMN @ polynomial if tall else polynomial @ x_KMN)
    return x_KMN


class Optimizer:
    """Updates weights by name.

    Args:
        settings: betas, momentum and the optimizers' other numbers.
        dtype: of Muon's orthogonalisation.
    """

    def __init__(self, rules: dict[str, Rule], settings: Pretrain, dtype: mx.Dtype) -> None:
        self._rules, self._settings, self._dtype = rules, settings, dtype
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

    def _decayed(self, weight: mx.array, direction: mx.array, amount: float) -> mx.array:
        """Less the share `amount`; cautious: only where what will be subtracted has the sign of the weight."""
        if not amount:
            return weight
        return weight - amount * (mx.where(direction * weight >= 0, weight, 0) if self._settings.cautious else weight)

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
        weight = self._decayed(weight, average, rate * rule.weight_decay)
        return weight - rate / (1 - first**step) * average / denominator

    def _alike(self, weights: State) -> Iterator[list[str]]:
        """Names of Muon's matrices, those of one shape together."""
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            if self._rules[name].muon:
                shapes.setdefault(weight.shape, []).append(name)
        yield from shapes.values()

    def _mixed(self, name: str, gradient: mx.array) -> mx.array:
        """Count the step of a weight, and mix its gradient with the average of the ones before."""
        state = self.state.get(name) or {"step": mx.array(0.0), "momentum": mx.zeros_like(gradient)}
        step, (first, last) = state["step"].item(), self._settings.muon.momentum
        momentum = first + (last - first) * min(1.0, step / max(1, self._settings.muon.momentum_steps))
        average = state["momentum"] + (1 - momentum) * (gradient - state["momentum"])
        self.state[name] = {"step": mx.array(step + 1), "momentum": average}
        return gradient + momentum * (average - gradient)

    def _muon(self, names: list[str], weights: State, gradients: State, factor: float) -> State:
        x_KMN = mx.stack([self._mixed(name, gradients[name]) for name in names])
        norms_K11 = mx.sqrt((x_KMN * x_KMN).sum(axis=(1, 2), keepdims=True))
        x_KMN = (x_KMN / mx.maximum(norms_K11, TINY)).astype(self._dtype)
        x_KMN = orthogonalise(x_KMN, self._settings.muon.iterations).astype(mx.float32)
        rule = self._rules[names[0]]
        rate = rule.peak * factor
        scale = rate * math.sqrt(max(1.0, x_KMN.shape[1] / x_KMN.shape[2]))
        return {
            name: self._decayed(weights[name], update, rate * rule.weight_decay) - scale * update
            for name, update in zip(names, x_KMN, strict=True)
        }
