"""torch's fused AdamW, with cautious weight decay."""

from __future__ import annotations

import torch

from lib.trainers.weight_decay import decay


class AdamW(torch.optim.AdamW):
    """AdamW (https://arxiv.org/abs/1711.05101).

    Args:
        groups: each with `params`, `lr` and `weight_decay`.
        cautious: decay only where the update takes the weight towards zero as well.
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float], cautious: bool) -> None:
        if cautious:  # the decay is done here, and the fused kernel has none to do
            groups = [{**group, "weight_decay": 0.0, "cautious_decay": group["weight_decay"]} for group in groups]
        super().__init__(groups, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            amount = group["lr"] * group.get("cautious_decay", 0.0)
            for weight in group["params"] if amount else ():
                if weight.grad is None:
                    continue
                # The update divides the first moment by what is positive, so it has that moment's sign.
                moment = self.state[weight].get("exp_avg")
                update = weight.grad if moment is None else weight.grad.lerp(moment, group["betas"][0])
                decay(weight, update, amount, cautious=True)
        super().step()
