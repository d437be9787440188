"""What computes. The loop knows an engine and no framework, so that another framework is another engine, not a loop."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lib.backends.select import Backend
from lib.pipeline.errors import SmeltError
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
        """Copies, which later steps leave alone."""

    def load(self, state: State) -> None: ...

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


def compiling(policy: bool) -> bool:
    """SMELT_COMPILE: 0 or 1; when it is unset, the backend's policy.

    Raises:
        SmeltError: it is something else.
    """
    given = os.environ.get("SMELT_COMPILE", "")
    if given not in ("", "0", "1"):
        raise SmeltError(f"SMELT_COMPILE is {given!r}; it is 0 or 1, or unset for what suits the device")
    return policy if not given else given == "1"


def _out_of_memory(error: RuntimeError) -> bool:
    # An allocation that the processor refuses has no class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class TorchEngine:
    """An objective and its optimizers on one device, through accelerate.

    Args:
        objective: gives the summed loss of (inputs, labels, documents); its `model` is what is trained.
        compiles: whether torch.compile serves this objective (its shapes are fixed).
        say: takes one line for the user.
    """

    def __init__(
        self,
        backend: Backend,
        objective: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        seed: int,
        compiles: bool,
        say: Callable[[str], None],
    ) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
        self._accelerator = Accelerator(
            cpu=backend.name == "cpu", mixed_precision="bf16" if backend.bf16 else "no", rng_types=[]
        )
        self._raw, self._optimizers, self._say = objective, optimizers, say
        self._names = {id(weight): name for name, weight in objective.model.named_parameters()}
        self._objective, *self._stepped = self._accelerator.prepare(objective, *optimizers)
        self._compiled = compiles and compiling(getattr(backend, "compiles", False))
        if self._compiled:
            self._objective.compile(dynamic=False)
        self._rows = micro_batch_rows()
        self._tokens = START_TOKENS.get(backend.name, START_TOKENS_ELSEWHERE)  # of a micro-batch, at most

    # -- one step

    def gradient(self, batch: Batch, counted: int) -> float:
        rows = self._rows or self._fitting(batch)
        generators = self._random()
        while True:
            try:
                total = torch.zeros((), device=self._accelerator.device)
                for piece in self._micro_batches(batch, rows):
                    loss = self._objective(*piece) / max(counted, 1)
                    self._accelerator.backward(loss)
                    total += loss.detach()
                break
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if rows == 1:
                    raise SmeltError(self._too_large(batch)) from None
            # Outside of `except`, which holds on to the frames of the failed pass and to their tensors.
            self.discard()
            self._set_random(generators)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            rows = math.ceil(rows / 2)
        self._remember(batch, rows)
        return total.item()

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

    def _too_large(self, batch: Batch) -> str:
        return (
            f"a single row of {batch.inputs.shape[1]} tokens does not fit into the memory of the device "
            f"({self.memory_mib():,.0f} MiB were in use); shorten model.context_length or choose a smaller model.size"
        )

    def _micro_batches(self, batch: Batch, rows: int) -> Iterator[list[Tensor]]:
        for start in range(0, len(batch.inputs), rows):
            piece = [part[start : start + rows] for part in batch]
            if not self._compiled:  # to which every length is another program
                # Columns that only hold padding are cut off; of packed rows there are none.
                places = (piece[1] != IGNORED).any(axis=0).nonzero()[0]
                piece = [part[:, : places.max(initial=0) + 1] for part in piece]
            yield [torch.from_numpy(np.ascontiguousarray(part)).to(self._accelerator.device) for part in piece]

    def clip(self, norm: float) -> float:
        return self._accelerator.clip_grad_norm_(self._objective.parameters(), norm).item()

    def update(self, factor: float) -> None:
        set_rates(self._optimizers, factor)
        for optimizer in self._stepped:
            optimizer.step()
        self.discard()

    def discard(self) -> None:
        for optimizer in self._stepped:
            optimizer.zero_grad()

    # -- without gradient

    @torch.no_grad()
    def loss_sum(self, batch: Batch) -> float:
        self._objective.eval()
        rows = self._rows or self._fitting(batch)
        total = sum(self._objective(*piece).item() for piece in self._micro_batches(batch, rows))
        self._objective.train()
        return total

    @torch.no_grad()
    def next_tokens(self, tokens_BT: np.ndarray) -> np.ndarray:
        self._raw.eval()
        with self._accelerator.autocast():
            logits_BTV = self._raw.model(torch.from_numpy(tokens_BT).to(self._accelerator.device))
        self._raw.train()
        return logits_BTV[:, -1].argmax(dim=-1).cpu().numpy()

    # -- what a checkpoint holds

    def state(self) -> State:
        weights = {name: _array(weight) for name, weight in self._raw.model.named_parameters() if weight.requires_grad}
        moments = {}
        for optimizer in self._optimizers:
            names = self._numbered(optimizer)
            for number, values in optimizer.state_dict()["state"].items():
                moments |= {f"{names[number]}.{key}": _array(value) for key, value in values.items()}
        return State(weights, moments, {name: _array(value) for name, value in self._random().items()})

    def load(self, state: State) -> None:
        """Raises SmeltError where the names or shapes are not those of this model and its optimizers."""
        trained = {name: weight for name, weight in self._raw.model.named_parameters() if weight.requires_grad}
        if {name: tuple(weight.shape) for name, weight in trained.items()} != {
            name: value.shape for name, value in state.model.items()
        }:
            raise SmeltError("the checkpoint holds other weights than this model")
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(torch.from_numpy(state.model[name]))
        states: dict[str, dict[str, Tensor | int]] = {}
        for key, value in state.optimizer.items():
            name, _, part = key.rpartition(".")
            states.setdefault(name, {})[part] = _value(value)
        for optimizer in self._optimizers:
            numbered = {number: states[name] for number, name in self._numbered(optimizer).items() if name in states}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": numbered})
        self._set_random({name: torch.from_numpy(value) for name, value in state.random.items()})

    def _numbered(self, optimizer: torch.optim.Optimizer) -> dict[int, str]:
        """The weights of an optimizer as its state dict numbers them."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return {number: self._names[id(weight)] for number, weight in enumerate(weights)}

    def _random(self) -> dict[str, Tensor]:
        device = self._accelerator.device.type
        states = {"cpu": torch.get_rng_state()}
        return states if device == "cpu" else {**states, device: torch.get_device_module(device).get_rng_state()}

    def _set_random(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        device = self._accelerator.device.type
        if device != "cpu" and device in states:  # a run may go on on another kind of device
            torch.get_device_module(device).set_rng_state(states[device])

    def memory_mib(self) -> float:
        device = self._accelerator.device.type
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        if device == "mps":
            return torch.mps.driver_allocated_memory() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _array(value: Tensor | int | float) -> np.ndarray:
    """A copy in main memory. A number outside of tensors becomes an int64 of no dimension, which no tensor here is."""
    if not isinstance(value, Tensor):
        return np.array(value)
    value = value.detach()
    if value.dtype == torch.bfloat16:  # unknown to numpy; fp32 holds it exactly
        value = value.float()
    return value.cpu().numpy().copy()


def _value(array: np.ndarray) -> Tensor | int:
    return int(array) if array.shape == () and array.dtype == np.int64 else torch.from_numpy(array)
