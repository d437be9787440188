"""Optimizers and their parameter groups."""

from __future__ import annotations

import torch
from torch import nn

from lib.params import Optimization


def adamw(model: nn.Module, settings: Optimization) -> torch.optim.AdamW:
    """AdamW (https://arxiv.org/abs/1711.05101); matrices decay, embeddings and norms do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    decayed = [weight for weight in weights if weight.ndim >= 2 and id(weight) not in embeddings]
    chosen = {id(weight) for weight in decayed}
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if id(weight) not in chosen], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
