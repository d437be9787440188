"""Lion: the sign of a mixture of momentum and gradient (Chen et al. 2023, https://arxiv.org/abs/2302.06675)."""

from __future__ import annotations

import torch

from lib.trainers.weight_decay import decay


class Lion(torch.optim.Optimizer):
    """Half of AdamW's state. Every weight moves by the learning rate, so that wants a third to a tenth of AdamW's.

    Args:
        groups: each with `params`, `lr` and `weight_decay`.
        betas: the share of the momentum in the update, and what stays of the momentum.
        cautious: decay only where the update takes the weight towards zero as well.
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float], cautious: bool) -> None:
        super().__init__(groups, {"betas": betas, "cautious": cautious})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            mixing, keeping = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                update = weight.grad.lerp(state["momentum"], mixing).sign_()
                decay(weight, update, group["lr"] * group["weight_decay"], group["cautious"])
                weight.add_(update, alpha=-group["lr"])
                state["momentum"].lerp_(weight.grad, 1 - keeping)
