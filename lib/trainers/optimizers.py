"""Which optimizer trains which weights. Every group keeps its peak rate, which the schedule scales.

                    matrices of the blocks   embedding   head, norms   state per matrix weight
    muon            Muon                     AdamW       AdamW         4 bytes
    adamw           AdamW                    AdamW       AdamW         8
    lion            Lion                     AdamW       AdamW         4
    adamw_8bit      AdamW8bit                AdamW       AdamW8bit     2
    paged_adamw_8bit                                                   2, in main memory when the GPU has none left
    lion_8bit       Lion8bit                 AdamW       AdamW8bit     1

Embeddings keep fp32 states, as bitsandbytes advises: their rows have gradients of very different sizes. Fine-tuning has
the optimizer that is named for all that it trains; `auto` is paged_adamw_8bit on CUDA and ROCm, adamw elsewhere.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from lib.backends.select import Backend
from lib.params.training import Optimization, Pretrain, Tuning
from lib.pipeline.errors import SmeltError
from lib.trainers.adamw import AdamW
from lib.trainers.lion import Lion
from lib.trainers.muon import Muon

T = TypeVar("T", bound=Tuning)


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate by the schedule's `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def for_pretraining(model: nn.Module, settings: Pretrain, backend: Backend) -> list[torch.optim.Optimizer]:
    """The optimizer of the settings for the matrices inside the blocks; AdamW for embedding, head and norms.

    Embedding rows are seen rarely and move little at the rate of a matrix, so they have a higher one. Only matrices
    decay. A head that is tied to the embedding is an embedding.

    Raises:
        SmeltError: the optimizer does not run on this device.
    """
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    outside = {id(weight) for weight in (*embeddings, model.lm_head.weight)}
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and id(weight) not in outside]
    known = {id(weight) for weight in (*embeddings, *matrices)}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    inner = _group(matrices, settings.learning_rate, settings.weight_decay)
    embedding, outer = _group(embeddings, settings.embedding_learning_rate), _group(rest, settings.head_learning_rate)
    if settings.optimizer == "adamw":
        return [_adamw([embedding, outer, inner], settings)]
    if settings.optimizer in ("muon", "lion"):
        return [_named(settings, [inner], backend), _adamw([embedding, outer], settings)]
    if settings.optimizer == "lion_8bit":
        outer_settings = settings.model_copy(update={"optimizer": "adamw_8bit"})
        return [
            _named(settings, [inner], backend),
            _named(outer_settings, [outer], backend),
            _adamw([embedding], settings),
        ]
    return [_named(settings, [outer, inner], backend), _adamw([embedding], settings)]


def resolve(settings: T, backend: Backend) -> T:
    """The settings with the optimizer that `auto` is on this backend."""
    if settings.optimizer != "auto":
        return settings
    return settings.model_copy(update={"optimizer": "paged_adamw_8bit" if backend.device.type == "cuda" else "adamw"})


def for_finetuning(model: nn.Module, settings: Optimization, backend: Backend) -> list[torch.optim.Optimizer]:
    """The optimizer of the settings for all that is trained; vectors (norms, DoRA's lengths) do not decay.

    Raises:
        SmeltError: the optimizer does not run on this device.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        _group(weights, settings.learning_rate, decay)
        for weights, decay in (
            ([weight for weight in trained if weight.ndim > 1], settings.weight_decay),
            ([weight for weight in trained if weight.ndim == 1], 0.0),
        )
        if weights
    ]
    return [_named(settings, groups, backend)]


def remarks(settings: Optimization, backend: Backend) -> list[str]:
    """What to tell the user about the optimizer on this device."""
    if settings.optimizer == "paged_adamw_8bit" and backend.device.type != "cuda":
        return [f"paged_adamw_8bit: nothing is paged on {backend.name}, which has one memory; the result is the same"]
    return []


def _group(weights: list[nn.Parameter], rate: float, weight_decay: float = 0.0) -> dict:
    return {"params": weights, "lr": rate, "peak": rate, "weight_decay": weight_decay}


def _adamw(groups: list[dict], settings: Optimization) -> AdamW:
    return AdamW(groups, betas=settings.betas, cautious=settings.cautious)


def _named(settings: Optimization, groups: list[dict], backend: Backend) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return _adamw(groups, settings)
    if settings.optimizer == "lion":
        return Lion(groups, betas=settings.lion.betas, cautious=settings.cautious)
    if settings.optimizer == "muon":
        dtype = torch.bfloat16 if backend.bf16 else torch.float32
        muon = settings.muon
        return Muon(groups, muon.momentum, muon.momentum_steps, muon.iterations, dtype, settings.cautious)
    if backend.device.type not in ("cpu", "cuda"):
        raise SmeltError(
            f"the optimizer {settings.optimizer} does not run on {backend.name}: bitsandbytes has none there. "
            f"Choose adamw, lion or muon"
        )
    from lib.trainers import eight_bit  # takes two seconds to import

    if settings.optimizer == "lion_8bit":
        return eight_bit.Lion8bit(groups, betas=settings.lion.betas)
    paged = settings.optimizer == "paged_adamw_8bit" and backend.device.type == "cuda"
    return (eight_bit.PagedAdamW8bit if paged else eight_bit.AdamW8bit)(groups, betas=settings.betas)
