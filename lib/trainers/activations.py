"""Activation checkpointing (Chen et al. 2016, https://arxiv.org/abs/1604.06174): memory for a third more computing.

Of each block only its input is kept; the rest is computed again when the backward pass comes to it.
"""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module) -> int:
    """Make every block of `model` recompute its activations in the backward pass; how many blocks there are.

    The blocks are the entries of its lists of modules, as decoders here and in transformers have them. Names of
    weights and results stay as they are; the state of the random generators is restored for the second pass.
    """
    blocks = [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return len(blocks)
