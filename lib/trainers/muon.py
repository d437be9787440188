"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). For matrices.

Shapes: K matrices of M rows and N columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lib.trainers.processes import on_whole_matrices
from lib.trainers.weight_decay import decay

# Odd quintics a x + b x^3 + c x^5, one per iteration, that take the singular values in [floor, 1] as near to 1 as that
# many can: each is the minimax polynomial of the interval that the one before leaves (Polar Express, Amsel et al. 2025,
# https://arxiv.org/abs/2505.16932), all but the last for values 2% larger, so that rounding in bf16 cannot leave it.
# floor: 0.01 (what was above it ends within 30% of 1), 0.003 (24%), 0.001 (17%). Jordan's, one quintic five times: 32%.
POLYNOMIALS = {
    3: ((7.9347, -22.2581, 15.8015), (3.5653, -2.5649, 0.4860), (2.6613, -1.9772, 0.4526)),
    4: ((8.2193, -23.3375, 16.6266), (3.9641, -2.8377, 0.5158), (3.4368, -2.4752, 0.4762), (2.4901, -1.8343, 0.4368)),
    5: (
        (8.3042, -23.6599, 16.8731),
        (4.1008, -2.9294, 0.5259),
        (3.8842, -2.7837, 0.5099),
        (3.2221, -2.3226, 0.4595),
        (2.2737, -1.6447, 0.4162),
    ),
}

# Matrices of one shape go through the iteration together, at most so many numbers at a time: small products are slow
# one by one, and large ones gain nothing and would need the memory of a second model.
_STACK = 2**24


def orthogonalise(x_KMN: Tensor, iterations: int) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices: U V^T of each singular value decomposition U S V^T.

    Args:
        x_KMN: each with a Frobenius norm of 1, or 0.
        iterations: 3, 4 or 5.
    """
    tall = x_KMN.shape[1] > x_KMN.shape[2]
    for a, b, c in POLYNOMIALS[iterations]:
        gram = x_KMN.mT @ x_KMN if tall else x_KMN @ x_KMN.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factors = (x_KMN, polynomial) if tall else (polynomial, x_KMN)
        x_KMN = torch.baddbmm(x_KMN, *factors, beta=a)
    return x_KMN


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, times sqrt(max(1, rows / columns)), with decoupled weight decay.

    torch.optim.Muon takes the matrices one by one, always in bf16 and with five iterations, and knows no cautious
    decay. For the 28 matrices of 3 million weights it takes 71 ms on two cores with AVX512-BF16, this one half of that.
    Where bf16 is emulated, fp32 is faster by far.

    Args:
        groups: each with `params`, `lr` and `weight_decay`.
        momentum: how much of the average of gradients stays, 0 to 1: at first, and after `momentum_steps`. Less of it
            follows faster, which the first steps need.
        iterations: of the orthogonalisation, 3 to 5.
        dtype: of the orthogonalisation: bf16 where the device multiplies it in hardware, else fp32.
        cautious: decay only where the update takes the weight towards zero as well.
    """

    def __init__(
        self,
        groups: list[dict],
        momentum: tuple[float, float],
        momentum_steps: int,
        iterations: int,
        dtype: torch.dtype,
        cautious: bool,
    ) -> None:
        super().__init__(groups, {"iterations": iterations, "cautious": cautious})
        self._momentum, self._momentum_steps = momentum, momentum_steps
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weights in _stacks([weight for weight in group["params"] if weight.grad is not None]):
                self._update(weights, group)

    def _mixed(self, weight: Tensor) -> Tensor:
        """Count the step of a weight, and mix its gradient with the average of the ones before."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(weight)
        first, last = self._momentum
        momentum = first + (last - first) * min(1.0, state["step"].item() / max(1, self._momentum_steps))
        state["step"] += 1
        return weight.grad.lerp(state["momentum"].lerp_(weight.grad, 1 - momentum), momentum)

    def _update(self, weights: list[Tensor], group: dict) -> None:
        def direction(x_KMN: Tensor) -> Tensor:
            norms_K11 = torch.linalg.vector_norm(x_KMN, dim=(1, 2), keepdim=True)
            # Weights behind a projection that starts at zero have no gradient at first: zero stays zero.
            x_KMN = (x_KMN / norms_K11.clamp(min=torch.finfo(norms_K11.dtype).tiny)).to(self._dtype)
            return orthogonalise(x_KMN, group["iterations"])

        rows, columns = weights[0].shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        updates_KMN = on_whole_matrices(direction, torch.stack([self._mixed(weight) for weight in weights]))
        for weight, update in zip(weights, updates_KMN.unbind(), strict=True):
            decay(weight, update, group["lr"] * group["weight_decay"], group["cautious"])
            weight.add_(update, alpha=-rate)


def _stacks(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The weights, sorted by shape, in lists that are not too large to stack."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        shapes.setdefault(weight.shape, []).append(weight)
    for shape, alike in shapes.items():
        count = max(1, _STACK // shape.numel())
        for start in range(0, len(alike), count):
            yield alike[start : start + count]
