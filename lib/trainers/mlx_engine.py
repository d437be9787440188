"""The engine in MLX: what lib/trainers/engine.py does with torch, for our decoder, whole or beside adapters.

It reads and writes the same checkpoints, so that a run may begin in one and end in the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from lib.backends.backend import Backend
from lib.backends.launch import check_devices
from lib.backends.precision import choose_precision
from lib.backends.select import compile_policy
from lib.model import decoder
from lib.model.mlx_decoder import Decoder, set_weights, weights
from lib.params.training import Optimization, Pretrain
from lib.pipeline.errors import SmeltError
from lib.trainers.engine import START_TOKENS, START_TOKENS_ELSEWHERE, State, micro_batch_rows
from lib.trainers.loader import IGNORED, Batch
from lib.trainers.mlx_optimizers import Optimizer, Rule, rules

DTYPES = {"fp32": mx.float32, "bf16": mx.bfloat16}

Arrays = dict[str, mx.array]


def for_pretraining(
    backend: Backend, model: decoder.Decoder, settings: Pretrain, say: Callable[[str], None]
) -> MlxEngine:
    """An engine for all weights of a decoder.

    Args:
        model: gives the shape and the first weights, and is left alone.
        say: takes one line for the user.

    Raises:
        SmeltError: an optimizer or a precision that MLX has not.
    """
    made = Decoder(model.config, dtype_of(backend, settings), settings.activation_checkpointing)
    set_weights(made, {name: weight.detach().cpu().numpy() for name, weight in model.named_parameters()})
    shapes = {name: weight.shape for name, weight in weights(made).items()}
    return MlxEngine(backend, made, rules(shapes, settings), settings, say)


def dtype_of(backend: Backend, settings: Optimization) -> mx.Dtype:
    """What matrices are multiplied in.

    Raises:
        SmeltError: a precision that MLX has not.
    """
    return DTYPES[choose_precision(settings.precision, backend)]


class MlxEngine:
    """A decoder and its optimizer on MLX's device.

    Args:
        model: a decoder, or what has its `loss_sum`.
        rules: how each weight is trained; those that have none are not.
        finished: takes the weights by name in the end.
        say: takes one line for the user.
    """

    def __init__(
        self,
        backend: Backend,
        model: Decoder,
        rules: dict[str, Rule],
        settings: Optimization,
        say: Callable[[str], None],
        finished: Callable[[dict[str, np.ndarray]], None] = lambda weights: None,
    ) -> None:
        check_devices(backend.name, gpus=1)
        compilation = compile_policy(backend)
        say(f"precision {choose_precision(settings.precision, backend)}, compilation {compilation.reason}")
        self._backend, self._finished = backend, finished
        self._model = model
        self._weights = {name: weight for name, weight in weights(model).items() if name in rules}
        self._optimizer = Optimizer(rules, settings, mx.bfloat16 if backend.bf16 else mx.float32)
        self._gradient: Arrays = {}
        self._random: dict[str, np.ndarray] = {}  # torch's, of a run that began there: nothing here is drawn
        differentiate = mx.value_and_grad(self._loss)
        self._differentiate = mx.compile(differentiate) if compilation.on else differentiate
        self._rows = micro_batch_rows()
        self._tokens = START_TOKENS.get(str(mx.default_device().type).rpartition(".")[2], START_TOKENS_ELSEWHERE)

    def _loss(
        self, values: Arrays, counted: mx.array, inputs_BT: mx.array, labels_BT: mx.array, where: dict[str, mx.array]
    ) -> mx.array:
        """The summed loss / `counted`, as a function of the weights; `where` is what else `loss_sum` is given."""
        self._model.update(tree_unflatten(list(values.items())))
        return self._model.loss_sum(inputs_BT, labels_BT, **where) / counted

    def _pieces(self, batch: Batch) -> list[tuple[mx.array, mx.array, dict[str, mx.array]]]:
        """The batch in micro-batches. Rows of one document each need no mask but the causal one, and where few places
        have a label, as in a chat, the others need no head."""
        count, length = batch.inputs.shape
        most = self._rows or min(count, max(1, self._tokens // length))
        rows = math.ceil(count / math.ceil(count / most))
        return [self._piece(*(part[at : at + rows] for part in batch)) for at in range(0, count, rows)]

    def _piece(
        self, inputs: np.ndarray, labels: np.ndarray, documents: np.ndarray
    ) -> tuple[mx.array, mx.array, dict[str, mx.array]]:
        where = {"documents_BT": mx.array(documents)} if documents.any() else {}
        places = np.flatnonzero(labels != IGNORED)
        if 0 < 2 * len(places) < labels.size:
            where["places_N"] = mx.array(places)
        return mx.array(inputs), mx.array(labels), where

    # -- one step

    def gradient(self, batch: Batch, counted: int) -> float:
        total, weight = 0.0, mx.array(float(max(counted, 1)))
        try:
            for piece in self._pieces(batch):
                loss, gradient = self._differentiate(self._weights, weight, *piece)
                if self._gradient:
                    gradient = {name: self._gradient[name] + value for name, value in gradient.items()}
                mx.eval(loss, gradient)  # now, or every micro-batch would be kept until the update
                self._gradient = gradient
                total += loss.item()
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            raise SmeltError(
                f"a micro-batch of {len(piece[0])} rows does not fit into memory; "
                f"set SMELT_MICRO_BATCH={max(1, len(piece[0]) // 2)}"
            ) from None
        finally:
            self._model.update(tree_unflatten(list(self._weights.items())))  # in place of what was traced
        return total

    def clip(self, norm: float) -> float:
        """As torch.nn.utils.clip_grad_norm_ does."""
        squares = [(value * value).sum() for value in self._gradient.values()]
        before = math.sqrt(mx.stack(squares).sum().item())
        scale = min(1.0, norm / (before + 1e-6))
        if scale < 1:
            self._gradient = {name: value * scale for name, value in self._gradient.items()}
        return before

    def update(self, factor: float) -> None:
        self._weights = self._optimizer.update(self._weights, self._gradient, factor)
        self.discard()
        mx.eval(self._weights, self._optimizer.state)
        self._model.update(tree_unflatten(list(self._weights.items())))

    def discard(self) -> None:
        self._gradient = {}

    # -- without gradient

    def loss_sum(self, batch: Batch) -> float:
        return sum(
            self._model.loss_sum(inputs, labels, **where).item() for inputs, labels, where in self._pieces(batch)
        )

    def next_tokens(self, tokens_BT: np.ndarray) -> np.ndarray:
        return np.array(self._model(mx.array(tokens_BT))[:, -1].argmax(axis=-1)).astype(np.int64)

    # -- what a checkpoint holds

    def state(self) -> State:
        moments = {
            f"{name}.{part}": np.array(value)
            for name, state in self._optimizer.state.items()
            for part, value in state.items()
        }
        return State({name: np.array(value) for name, value in self._weights.items()}, moments, dict(self._random))

    def load(self, state: State) -> None:
        """Raises SmeltError where the names or shapes are not those of this model and its optimizer."""
        shapes = {name: tuple(value.shape) for name, value in self._weights.items()}
        if shapes != {name: value.shape for name, value in state.model.items()}:
            raise SmeltError("the checkpoint holds other weights than this model")
        self._weights = {name: mx.array(state.model[name]) for name in self._weights}
        self._model.update(tree_unflatten(list(self._weights.items())))
        self._optimizer.state = {}
        for key, value in state.optimizer.items():
            name, _, part = key.rpartition(".")
            self._optimizer.state.setdefault(name, {})[part] = mx.array(value)
        self._random = dict(state.random)

    def finish(self) -> None:
        """There is one process."""
        self._finished(self.state().model)

    def memory_mib(self) -> float:
        return self._backend.memory_mib()
