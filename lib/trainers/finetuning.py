"""The engine that fine-tunes: which framework, in which precision, compiled or not."""

from __future__ import annotations

import os
from collections.abc import Callable

from torch import nn

from lib.backends.backend import Backend
from lib.backends.precision import apply_precision
from lib.params.training import Finetune
from lib.trainers import unsloth
from lib.trainers.activations import checkpoint_activations
from lib.trainers.engine import Engine, TorchEngine
from lib.trainers.frozen import hold_frozen
from lib.trainers.objectives import Chat
from lib.trainers.optimizers import for_finetuning


def finetuning_engine(
    backend: Backend, model: nn.Module, settings: Finetune, seed: int, say: Callable[[str], None]
) -> Engine:
    """An engine for the weights of `model` that want gradients.

    Args:
        model: a transformers model, or a peft model around one. Its frozen matrices may be rounded.
        say: takes one line for the user.

    Raises:
        SmeltError: an optimizer, a precision or a method that the backend has not.
    """
    if backend.framework == "mlx":
        from lib.trainers import mlx_finetuning  # only where MLX is installed

        return mlx_finetuning.for_finetuning(backend, model, settings, say)
    precision = apply_precision(model, backend, settings.precision)
    optimizers = for_finetuning(model, settings, backend)
    four_bits = getattr(model, "is_loaded_in_4bit", False)
    if four_bits:
        model.to(backend.device)  # where its quantised layers are already
    objective = Chat(model, own_attention=unsloth.asked())
    # FSDP divides blocks whose weights are of one type.
    divided = os.environ.get("SMELT_SHARDING") == "fsdp" and os.environ.get("WORLD_SIZE", "1") != "1"
    if precision.autocast and not divided:
        hold_frozen(model, precision.autocast)
    if settings.activation_checkpointing and not unsloth.asked():  # which has its own
        checkpoint_activations(model)
    # bitsandbytes' layers carry objects, for each of which torch.compile would make a program of its own; FSDP's hooks
    # cut blocks into pieces; and a block that is computed twice is left to torch's own checkpointing.
    compiles = not (unsloth.asked() or four_bits or divided or settings.activation_checkpointing)
    return TorchEngine(backend, objective, optimizers, seed, precision, compiles, say=say)
