"""What computes. The loop knows an engine and no framework, so that another framework is another engine, not a loop."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.backends.backend import Backend
from lib.backends.collectives import collectives
from lib.backends.launch import check_devices, hint
from lib.backends.precision import Precision
from lib.backends.select import compile_policy
from lib.pipeline.errors import SmeltError
from lib.trainers import processes
from lib.trainers.loader import IGNORED, Batch
from lib.trainers.optimizers import set_rates

# Tokens of a micro-batch that `auto` starts with. A processor gains nothing beyond what fills its caches; a GPU does.
START_TOKENS = {"cpu": 8192}
START_TOKENS_ELSEWHERE = 65536


class State(NamedTuple):
    """All that an engine has to remember, as arrays by name, whole (not sharded)."""

    model: dict[str, np.ndarray]  # <weight>, those that are trained
    optimizer: dict[str, np.ndarray]  # <weight>.<name of the state>
    random: dict[str, np.ndarray]  # state of the random generator of each device
    best: Mapping[str, np.ndarray] = MappingProxyType({})  # <weight>, of the best validation, if it is kept


class Engine(Protocol):
    """Computes gradients and updates of one model. Every number it returns is of all processes together."""

    def gradient(self, batch: Batch, counted: int) -> float:
        """Add the gradient of the summed loss / `counted`, micro-batch by micro-batch; that loss, in nats."""

    def clip(self, norm: float) -> float:
        """Scale the gradient down to `norm` if it is longer; its norm before."""

    def update(self, factor: float) -> None:
        """One optimizer step with every group's peak rate times `factor`; clears the gradient."""

    def discard(self) -> None:
        """Clear the gradient."""

    def loss_sum(self, batch: Batch) -> float:
        """The summed loss without gradient, in nats."""

    def next_tokens(self, tokens_BT: np.ndarray) -> np.ndarray:
        """The likeliest token after each row, (B,)."""

    def state(self) -> State:
        """Copies, which later steps leave alone. All processes have to ask; only the first is given the arrays."""

    def load(self, state: State | None) -> None:
        """Go on from there. Only the first process needs the state."""

    def finish(self) -> None:
        """Leave what was trained, whole, in the first process's model, and end the work of all processes together."""

    def memory_mib(self) -> float:
        """The most memory of the device that was in use."""


def micro_batch_rows() -> int | None:
    """SMELT_MICRO_BATCH: rows per forward pass; None for `auto`, the default.

    Raises:
        SmeltError: it is neither.
    """
    given = os.environ.get("SMELT_MICRO_BATCH") or "auto"
    if given == "auto":
        return None
    if not given.isdecimal() or int(given) < 1:
        raise SmeltError(f"SMELT_MICRO_BATCH is {given!r}; it is a number of rows, or auto")
    return int(given)


def _process_group(backend: Backend, say: Callable[[str], None]) -> list[InitProcessGroupKwargs]:
    """How the processes of this run exchange gradients, where there are several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return []
    name, remark = collectives(backend)
    if remark:
        say(remark)
    return [InitProcessGroupKwargs(backend=name)]


def _out_of_memory(error: RuntimeError) -> bool:
    # An allocation that the processor refuses has no class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class TorchEngine:
    """An objective and its optimizers on one device, through accelerate.

    Args:
        objective: gives the summed loss of (inputs, labels, documents); its `model` is what is trained.
        precision: what `objective` was prepared for (lib/backends/precision.py).
        compiles: whether torch.compile serves this objective (its shapes are fixed).
        say: takes one line for the user.
    """

    def __init__(
        self,
        backend: Backend,
        objective: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        seed: int,
        precision: Precision,
        compiles: bool,
        say: Callable[[str], None],
    ) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
        check_devices(backend.name, torch.cuda.device_count())
        self._accelerator = Accelerator(
            cpu=backend.name == "cpu", mixed_precision="bf16" if precision.autocast else "no", rng_types=[],
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                *_process_group(backend, say),
            ],
        )  # fmt: skip
        self._backend, self._given, self._optimizers, self._say = backend, objective, optimizers, say
        if advice := hint(torch.cuda.device_count() if backend.device.type == "cuda" else 1):
            say(advice)
        if processes.shards():
            self._raw = processes.shard(objective, optimizers)
            self._objective = self._accelerator.prepare_model(self._raw, evaluation_mode=True)  # autocast alone
            self._stepped = optimizers
        else:
            self._raw = objective
            # accelerate does not know the new name of it yet.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self._objective, *self._stepped = self._accelerator.prepare(objective, *optimizers)
        self._names = {id(weight): name for name, weight in self._raw.model.named_parameters()}
        compilation = compile_policy(backend)
        self._compiled = compiles and compilation.on
        say(f"precision {precision.name}" + (f", compilation {compilation.reason}" if compiles else ""))
        if self._compiled:
            self._raw.compile()
        self._rows = micro_batch_rows()
        self._tried: set[tuple[int, int]] = set()  # rows and length of micro-batches that fit in all processes
        self._tokens = START_TOKENS.get(backend.name, START_TOKENS_ELSEWHERE)  # of a micro-batch, at most

    # -- one step

    def gradient(self, batch: Batch, counted: int) -> float:
        batch = processes.own_rows(batch)
        rows = self._rows or self._fitting(batch)
        if processes.count() > 1:
            rows = self._agreed(batch, rows)
        return processes.total(self._what_fits(batch, rows, lambda rows: self._accumulate(batch, rows, counted)))

    def _what_fits(self, batch: Batch, rows: int, compute: Callable[[int], float]) -> float:
        """`compute` with so many rows at a time, or, where that does not fit into memory, with half, and so on."""
        generators = self._random()
        while True:
            try:
                total = compute(rows)
                break
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if processes.count() > 1 or rows == 1:
                    raise SmeltError(self._too_large(batch, rows)) from None
            # Outside of `except`, which holds on to the frames of the failed pass and to their tensors.
            rows = self._smaller(rows, generators)
        self._remember(batch, rows)
        return total

    def _accumulate(self, batch: Batch, rows: int, counted: int) -> float:
        total = torch.zeros((), device=self._accelerator.device)
        passes = math.ceil(len(batch.inputs) / rows)
        with processes.own_randomness():
            for number, piece in enumerate(self._micro_batches(batch, rows), start=1):
                with processes.meeting(self._objective, last=number == passes):
                    loss = self._objective(*piece) / max(counted, 1)
                    # Gradients are averaged over the processes, and are to be summed.
                    self._accelerator.backward(loss * processes.count())
                total += loss.detach()
        return total.item()

    def _smaller(self, rows: int, generators: dict[str, Tensor]) -> int:
        """Go back to before a pass that did not fit into memory; rows for the next attempt."""
        self.discard()
        self._set_random(generators)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return math.ceil(rows / 2)

    def _agreed(self, batch: Batch, rows: int) -> int:
        """Rows of a micro-batch that fit in all processes, tried before the first step on batches of this length.

        A process that ran out of memory between two exchanges would leave the others waiting, so the trial has none.
        With FSDP every pass has some: there is no trial, and what does not fit ends the run.
        """
        if not isinstance(self._objective, DistributedDataParallel):
            return rows
        while (rows, batch.inputs.shape[1]) not in self._tried:
            generators, failed = self._random(), False
            try:
                with processes.meeting(self._objective, last=False):
                    self._accelerator.backward(self._objective(*next(self._micro_batches(batch, rows))))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                failed = True
            smaller = self._smaller(rows, generators)
            if not processes.largest(failed):
                self._tried.add((rows, batch.inputs.shape[1]))
            elif rows == 1:
                raise SmeltError(self._too_large(batch, rows))
            else:
                rows = smaller
        return rows

    def _fitting(self, batch: Batch) -> int:
        """Rows of a micro-batch: as many as fit, in micro-batches of one size."""
        count, length = batch.inputs.shape
        most = min(count, max(1, self._tokens // length))
        return math.ceil(count / math.ceil(count / most))

    def _remember(self, batch: Batch, rows: int) -> None:
        count, length = batch.inputs.shape
        wanted = self._rows or self._fitting(batch)
        if rows == wanted:
            return
        fits = f"{rows} row{'s' if rows > 1 else ''} of {length} tokens, {math.ceil(count / rows)} a step"
        if self._rows:
            self.discard()
            raise SmeltError(
                f"a micro-batch of {wanted} rows does not fit into the memory of the device; this one does: {fits}. "
                f"Set SMELT_MICRO_BATCH={rows}, or leave it unset"
            )
        self._tokens = rows * length
        self._say(f"a micro-batch of {wanted} rows does not fit into memory; going on with {fits}")

    def _too_large(self, batch: Batch, rows: int) -> str:
        used = f"the memory of the device ({self.memory_mib():,.0f} MiB were in use)"
        if rows > 1:
            return f"a micro-batch of {rows} rows does not fit into {used}; set SMELT_MICRO_BATCH={math.ceil(rows / 2)}"
        return (
            f"a single row of {batch.inputs.shape[1]} tokens does not fit into {used}; shorten model.context_length or "
            f"choose a smaller model.size"
        )

    def _micro_batches(self, batch: Batch, rows: int) -> Iterator[list[Tensor]]:
        for start in range(0, len(batch.inputs), rows):
            piece = [part[start : start + rows] for part in batch]
            if not (self._compiled and self._raw.fixed_shapes):  # to which every length is another program
                # Columns that only hold padding are cut off; of packed rows there are none.
                places = (piece[1] != IGNORED).any(axis=0).nonzero()[0]
                piece = [part[:, : places.max(initial=0) + 1] for part in piece]
            yield [torch.from_numpy(np.ascontiguousarray(part)).to(self._accelerator.device) for part in piece]

    def clip(self, norm: float) -> float:
        return processes.whole(self._accelerator.clip_grad_norm_(self._objective.parameters(), norm)).item()

    def update(self, factor: float) -> None:
        set_rates(self._optimizers, factor)
        try:
            for optimizer in self._stepped:
                optimizer.step()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise SmeltError(
                f"weights, gradients and the optimizer's states do not fit into the memory of the device "
                f"({self.memory_mib():,.0f} MiB were in use); choose a smaller model.size, or an optimizer with states "
                f"of 8 bits"
            ) from None
        self.discard()

    def discard(self) -> None:
        for optimizer in self._stepped:
            optimizer.zero_grad()

    # -- without gradient

    @torch.no_grad()
    def loss_sum(self, batch: Batch) -> float:
        self._objective.eval()
        batch = processes.own_rows(batch)
        rows = self._rows or self._fitting(batch)
        total = self._what_fits(
            batch, rows, lambda rows: sum(self._objective(*piece).item() for piece in self._micro_batches(batch, rows))
        )
        processes.put_back(self._raw)
        self._objective.train()
        return processes.total(total)

    @torch.no_grad()
    def log_probabilities(self, batch: Batch) -> np.ndarray:
        """Of each label, row after row, (N,) float32 in nats, if the objective tells them. Each process has all."""
        self._raw.eval()
        rows = self._rows or self._fitting(batch)
        with self._accelerator.autocast():
            found = [
                self._raw.log_probabilities(*piece[:3]).float().cpu().numpy()
                for piece in self._micro_batches(batch, rows)
            ]
        processes.put_back(self._raw)
        self._raw.train()
        return np.concatenate(found)

    @torch.no_grad()
    def next_tokens(self, tokens_BT: np.ndarray) -> np.ndarray:
        self._raw.eval()
        with self._accelerator.autocast():
            model = getattr(self._raw, "call_model", self._raw.model)
            found = model(torch.from_numpy(tokens_BT).to(self._accelerator.device))
            logits_BTV = getattr(found, "logits", found)  # transformers' models give more than that
        processes.put_back(self._raw)
        self._raw.train()
        return logits_BTV[:, -1].argmax(dim=-1).cpu().numpy()

    # -- what a checkpoint holds

    def state(self) -> State:
        weights = {name: _gathered(weight) for name, weight in self._trained().items()}
        moments = {}
        for optimizer in self._optimizers:
            names = self._numbered(optimizer)
            for number, values in optimizer.state_dict()["state"].items():
                moments |= {f"{names[number]}.{key}": _gathered(value) for key, value in values.items()}
        return State(weights, moments, {name: _array(value) for name, value in self._random().items()})

    def load(self, state: State | None) -> None:
        """Raises SmeltError where the names or shapes are not those of this model and its optimizers."""
        model, optimizer, random, _ = state or State({}, {}, {})
        trained = self._trained()
        shapes = processes.tell({name: value.shape for name, value in model.items()})
        if shapes != {name: tuple(weight.shape) for name, weight in trained.items()}:
            raise SmeltError("the checkpoint holds other weights than this model")
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(processes.place(model.get(name), weight))
        states: dict[str, dict[str, Tensor | int]] = {}
        kinds = processes.tell({key: (value.shape, value.dtype) for key, value in optimizer.items()})
        for key, (shape, dtype) in kinds.items():
            name, _, part = key.rpartition(".")
            like = trained[name] if shape == trained[name].shape else torch.from_numpy(np.empty(shape, dtype))
            states.setdefault(name, {})[part] = _value(processes.place(optimizer.get(key), like))
        for each in self._optimizers:
            numbered = {number: states[name] for number, name in self._numbered(each).items() if name in states}
            each.load_state_dict({**each.state_dict(), "state": numbered})
        self._set_random({name: torch.from_numpy(value) for name, value in processes.tell(random).items()})

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._raw.model.named_parameters() if weight.requires_grad}

    def _numbered(self, optimizer: torch.optim.Optimizer) -> dict[int, str]:
        """The weights of an optimizer as its state dict numbers them."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return {number: self._names[id(weight)] for number, weight in enumerate(weights)}

    def _random(self) -> dict[str, Tensor]:
        device = self._accelerator.device.type
        states = {"cpu": torch.get_rng_state()}
        return states if device == "cpu" else {**states, device: torch.get_device_module(device).get_rng_state()}

    def _set_random(self, states: dict[str, Tensor]) -> None:
        if "cpu" in states:  # MLX draws nothing and saves none
            torch.set_rng_state(states["cpu"])
        device = self._accelerator.device.type
        if device != "cpu" and device in states:  # a run may go on on another kind of device
            torch.get_device_module(device).set_rng_state(states[device])

    def finish(self) -> None:
        if self._raw is not self._given:  # which is divided, and so are the states of the optimizers
            given = dict(self._given.model.named_parameters())
            for name, weight in self._trained().items():
                full = processes.whole(weight)
                if not processes.rank():
                    given[name].data.copy_(full)
            self._raw, self._optimizers = self._given, []
        processes.leave()

    def memory_mib(self) -> float:
        return self._backend.memory_mib()


def _array(value: Tensor | int | float) -> np.ndarray:
    """A copy in main memory. A number outside of tensors becomes an int64 of no dimension, which no tensor here is."""
    if not isinstance(value, Tensor):
        return np.array(value)
    value = value.detach()
    if value.dtype == torch.bfloat16:  # unknown to numpy; fp32 holds it exactly
        value = value.float()
    return value.cpu().numpy().copy()


def _gathered(value: Tensor | int | float) -> np.ndarray:
    """The same of all processes' shares, for the first process; the others take part and keep nothing."""
    full = processes.whole(value) if isinstance(value, Tensor) else value
    return np.empty(0) if processes.rank() else _array(full)


def _value(value: Tensor) -> Tensor | int:
    return int(value) if value.shape == () and value.dtype == torch.int64 else value
