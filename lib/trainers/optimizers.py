"""Optimizers and their parameter groups. Every group keeps its peak rate, which the schedule scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib.params.training import Optimization, Pretrain
from lib.trainers.processes import on_whole_matrices

# Quintic Newton-Schulz iteration: maps singular values into about [0.7, 1.2] (https://kellerjordan.github.io/posts/muon).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalise(matrix_MN: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: U V^T of the singular value decomposition U S V^T."""
    a, b, c = _COEFFICIENTS
    wide_MN = matrix_MN.T if matrix_MN.shape[0] > matrix_MN.shape[1] else matrix_MN
    x_MN = wide_MN / (wide_MN.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram_MM = x_MN @ x_MN.T
        x_MN = a * x_MN + (b * gram_MM + c * gram_MM @ gram_MM) @ x_MN
    return x_MN.T if matrix_MN.shape[0] > matrix_MN.shape[1] else x_MN


def _orthogonalise_all(x_KMN: Tensor) -> Tensor:
    return torch.stack([orthogonalise(x_MN) for x_MN in x_KMN]) if len(x_KMN) else x_KMN


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), with decoupled weight decay; for matrices.

    torch.optim.Muon iterates in bf16 whatever the hardware, which on a processor that emulates bf16 takes half of the
    step; this one iterates in the dtype of the weights.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                nesterov_KMN = torch.stack([weight.grad.lerp(state["momentum"], group["momentum"])])
                update_MN = on_whole_matrices(_orthogonalise_all, nesterov_KMN)[0]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                rows, columns = weight.shape
                weight.add_(update_MN, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def _with_peaks(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate by the schedule's `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def for_pretraining(model: nn.Module, settings: Pretrain) -> list[torch.optim.Optimizer]:
    """Muon or AdamW for the matrices inside the blocks; AdamW at rates of their own for embedding, head and norms.

    Embedding rows are seen rarely and move little at the rate of a matrix, so theirs is higher. Only matrices decay.
    """
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    outside = {id(weight) for weight in (*embeddings, model.lm_head.weight)}
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and id(weight) not in outside]
    known = {id(weight) for weight in (*embeddings, *matrices)}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    groups = [
        {"params": embeddings, "lr": settings.embedding_learning_rate},
        {"params": rest, "lr": settings.head_learning_rate},
    ]
    inner = {"params": matrices, "lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    optimizers: list[torch.optim.Optimizer] = []
    if settings.optimizer == "muon":
        optimizers.append(Muon([inner], lr=settings.learning_rate))
    else:
        groups.append(inner)
    optimizers.append(torch.optim.AdamW(groups, betas=settings.betas, weight_decay=0.0, fused=True))
    return [_with_peaks(optimizer) for optimizer in optimizers]


def for_finetuning(model: nn.Module, settings: Optimization) -> list[torch.optim.Optimizer]:
    """Muon or AdamW (https://arxiv.org/abs/1711.05101) for everything that is trained: matrices, the halves of LoRA."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "muon":
        return [_with_peaks(Muon([{"params": weights}], **rates))]
    return [_with_peaks(torch.optim.AdamW(weights, betas=settings.betas, fused=True, **rates))]
