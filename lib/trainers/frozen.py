"""Weights that are not trained, held as the products read them."""

from __future__ import annotations

import torch
from torch import nn


def hold_frozen(model: nn.Module, dtype: torch.dtype) -> int:
    """Round the frozen matrices of `model`'s linear layers to `dtype`; how many bytes that saves.

    Under autocast to `dtype` each product rounds them so anyway, in every pass: the results are the same, bit for bit.
    What is also read in fp32 stays as it is: a head that is tied to the embedding, and what DoRA takes the lengths of.
    The model is then no longer its base plus adapters: for merging, the base has to be loaded again.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with_lengths = {id(module.base_layer) for module in model.modules() if getattr(module, "lora_variant", None)}
    saved = 0
    for module in model.modules():
        if type(module) is not nn.Linear or module.weight.requires_grad or id(module.weight) in embedded:
            continue
        if id(module) not in with_lengths:
            before = module.weight.nbytes
            module.weight.data = module.weight.data.to(dtype)
            saved += before - module.weight.nbytes
    return saved
