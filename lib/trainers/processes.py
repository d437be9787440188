"""The processes of one run: one, or as many as SMELT_LAUNCHER starts (lib.backends.launch).

All of them run the same loop on the same batches. Each takes its share of a batch's rows; sums, norms and stop signals
are those of all, so that every process decides alike. The first alone reads and writes checkpoints, which are whole.

SMELT_SHARDING says how they divide the work. `ddp`, the default: each holds the whole model, gradients are averaged
(Li et al. 2020, https://arxiv.org/abs/2006.15704). `fsdp`: each holds a share of the weights, gradients and states, and
the weights of a block are gathered when it computes (Zhao et al. 2023, https://arxiv.org/abs/2304.11277; torch's second
version, fully_shard). accelerate starts the processes' group and wraps for DDP; its FSDP refuses processors, so
fully_shard, which is all that it calls, is called here, and what is tested on processors is what runs on GPUs.

Shapes: K matrices of M rows and N columns.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lib.pipeline.errors import SmeltError
from lib.trainers.loader import IGNORED, Batch

T = TypeVar("T")


def count() -> int:
    """How many processes take part in this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def shards() -> bool:
    """Whether SMELT_SHARDING asks for fsdp.

    Raises:
        SmeltError: it is neither ddp nor fsdp.
    """
    given = os.environ.get("SMELT_SHARDING") or "ddp"
    if given not in ("ddp", "fsdp"):
        raise SmeltError(
            f"SMELT_SHARDING is {given!r}; it is ddp (every process holds the model) or fsdp (a share of it)"
        )
    return given == "fsdp" and count() > 1


# -- to agree


def largest(number: int) -> int:
    """The largest that any process has, for all of them."""
    return int(_reduced(torch.tensor(number), dist.ReduceOp.MAX))


def total(value: float) -> float:
    """The sum over all processes."""
    return _reduced(torch.tensor(value, dtype=torch.float64), dist.ReduceOp.SUM).item()


def _reduced(value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if count() > 1:
        value = value.to(_device())
        dist.all_reduce(value, operation)
    return value


def tell(value: T) -> T:
    """What the first process says: its `value`, for all of them."""
    if count() == 1:
        return value
    said: list[Any] = [value]
    dist.broadcast_object_list(said, src=0, device=_device())
    return said[0]


def first_reads(find: Callable[[], tuple[T, Any] | None]) -> tuple[T | None, Any]:
    """find() in the first process: what is large for it alone, what is small for all, or None and None.

    Raises:
        SmeltError: find() raised one. All processes raise it, so that none waits for the others.
    """
    found = small = error = None
    if not rank():
        try:
            found = find()
            small = found and found[1]
        except SmeltError as raised:
            error = str(raised)
    small, error = tell((small, error))
    if error:
        raise SmeltError(error)
    return found and found[0], small


def _device() -> torch.device:
    """Where the processes exchange tensors."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def leave() -> None:
    """End the group; every process is alone from here."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


# -- to divide a batch


def own_rows(batch: Batch) -> Batch:
    """This process's rows of a batch: every n-th, so that rows sorted by length are divided evenly. All processes get
    as many, since they have to meet in every pass; what is missing is filled up with a row that carries no loss."""
    if count() == 1:
        return batch
    places = np.arange(rank(), len(batch.inputs) + rank(), count())
    there = places < len(batch.inputs)
    own = batch._make(part[np.where(there, places, 0)] for part in batch)
    return own._replace(labels=np.where(there[:, None], own.labels, IGNORED))


@contextmanager
def own_randomness() -> Iterator[None]:
    """Other random numbers (dropout's) in every process, from a generator that is in step in all of them: it is the
    one that a checkpoint holds, and the numbers do not depend on what came before in this process."""
    if count() == 1:
        yield
        return
    seed = int(torch.randint(2**60, ()))
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed + rank())
        yield


@contextmanager
def meeting(module: nn.Module, last: bool) -> Iterator[None]:
    """Around the forward and backward pass of a micro-batch. DDP exchanges gradients once, in the `last` of a step;
    FSDP in each, because gradients of the whole model are what it has no room for."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


# -- to divide a model


def shard(objective: nn.Module, optimizers: list[torch.optim.Optimizer]) -> nn.Module:
    """A copy of the objective of which each process holds its share, block by block, and which the optimizers then
    train. The objective itself stays as it is in the first process; in the others it gives up its memory.

    Raises:
        SmeltError: an optimizer cannot work on shares.
    """
    if any(base.__module__.startswith("bitsandbytes") for each in optimizers for base in type(each).__mro__):
        raise SmeltError(
            "SMELT_SHARDING=fsdp divides the optimizer's states, and the 8-bit optimizers cannot: leave SMELT_SHARDING "
            "unset, or choose adamw, lion or muon"
        )
    names = {id(weight): name for name, weight in objective.named_parameters()}
    divided = copy.deepcopy(objective)
    if rank():
        objective.to("meta")
    mesh = init_device_mesh(_device().type, (count(),))
    for blocks in [module for module in divided.modules() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(divided, mesh=mesh)
    weights = dict(divided.named_parameters())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [weights[names[id(weight)]] for weight in group["params"]]
    # For samples the model alone is called; what of it belongs to no block has to be gathered for that, too.
    divided.call_model = MethodType(lambda self, tokens: self.model(tokens), divided)
    for name in ("call_model", "log_probabilities"):
        if hasattr(divided, name):
            register_fsdp_forward_method(divided, name)
    return divided


def put_back(module: nn.Module) -> None:
    """After a pass without gradient: give up what was gathered. The root keeps it for a backward pass, and weights that
    were loaded meanwhile would be lost."""
    if isinstance(module, FSDPModule):
        module.reshard()


def whole(value: Tensor) -> Tensor:
    """The tensor of which the processes hold shares. All of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def place(value: np.ndarray | None, like: Tensor) -> Tensor:
    """The first process's `value` where and as `like` is: on its device, of its type, sharded as it is.

    Args:
        value: whole; the others need none.
    """
    where = _device() if count() > 1 else like.device
    full = torch.empty(like.shape) if value is None else torch.from_numpy(value)
    full = full.to(where, like.dtype)
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements)
    if count() > 1:
        dist.broadcast(full, 0)
    return full.to(like.device)


def on_whole_matrices(function: Callable[[Tensor], Tensor], x_KMN: Tensor) -> Tensor:
    """function(x_KMN), where the function needs whole matrices: of sharded ones, each process takes its part of the K.

    The two exchanges move every number once there and once back (all-to-all), and no product is computed twice.
    """
    if not isinstance(x_KMN, DTensor):
        return function(x_KMN)
    mine = function(x_KMN.redistribute(placements=[Shard(0)]).to_local())
    y_KMN = DTensor.from_local(
        mine, x_KMN.device_mesh, [Shard(0)], run_check=False, shape=x_KMN.shape, stride=x_KMN.stride()
    )
    return y_KMN.redistribute(placements=x_KMN.placements)
