"""What a run may cost. The same requests under the same limits end at the same one, cached or not, many at once or few.

Cost is added up in the order of the requests, and one is begun only if the worst that it and those before it can cost
still fits. One that is refused while others are under way is looked at again when they are done: what stops a run is
the known cost of everything before.
"""

from __future__ import annotations

from typing import NamedTuple

from lib.params.completion import Budget


class Cost(NamedTuple):
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(*(mine + yours for mine, yours in zip(self, other, strict=True)))

    def money(self, limits: Budget) -> float:
        return (self.tokens_in * limits.price_in + self.tokens_out * limits.price_out) / 1e6


def exceeded(cost: Cost, limits: Budget) -> str | None:
    """The first limit that `cost` is beyond: requests, tokens or money."""
    if limits.requests is not None and cost.requests > limits.requests:
        return "requests"
    if limits.tokens is not None and cost.tokens_in + cost.tokens_out > limits.tokens:
        return "tokens"
    if limits.money is not None and cost.money(limits) > limits.money:
        return "money"
    return None
