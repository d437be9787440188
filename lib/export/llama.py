"""llama.cpp below llama-cpp-python's `Llama`: logits of every token, an adapter beside the model, its products."""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import llama_cpp
import numpy as np
from llama_cpp import _ggml
from numpy.typing import NDArray

from lib.pipeline.errors import SmeltError

# Name of a weight, and what it is multiplied with: (rows, width).
Watch = Callable[[str, NDArray[np.float32]], None]


def quiet() -> None:
    """Only errors of llama.cpp are shown; else there is a line per tensor."""
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    llama_cpp.llama_backend_init()


class Reader:
    """A GGUF file that reads tokens, one conversation at a time; `close`, or the end of it, frees its memory.

    Args:
        window: tokens that it can hold.
        threads: for computing.
        adapter: a LoRA adapter, GGUF as well, that is at work beside the model.
        watch: called with every product of a weight and activations.

    Raises:
        SmeltError: llama.cpp cannot load one of the files.
    """

    def __init__(
        self, path: Path, window: int, threads: int, adapter: Path | None = None, watch: Watch | None = None
    ) -> None:
        quiet()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SmeltError(f"llama.cpp cannot load {path}: it is not a whole GGUF file of a model that it knows")
        self.window = window
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = window
        settings.n_threads = settings.n_threads_batch = threads
        self._eye = _Eye(watch) if watch else None
        if self._eye:
            settings.cb_eval = self._eye.callback
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise SmeltError(f"llama.cpp has no memory for {window} tokens of {path}")
        if adapter:
            opened = llama_cpp.llama_adapter_lora_init(self._model, str(adapter).encode())
            if not opened:
                raise SmeltError(f"llama.cpp cannot lay {adapter} beside {path}: it is not whole, or of another base")
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(opened)
            llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(window, 0, 1)
        self.close = weakref.finalize(self, _free, self._batch, self._context, self._model)
        self.clear()

    def clear(self) -> None:
        """Forget what was read."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._read = 0

    def read(self, ids: Sequence[int], every: bool) -> NDArray[np.float32]:
        """Logits (len(ids), vocabulary) after each of `ids`, or (1, vocabulary) after the last.

        They follow what was read before.

        Raises:
            SmeltError: llama.cpp fails, or `ids` are more than the window has room for.
        """
        if self._read + len(ids) > self.window:
            raise SmeltError(f"{self._read + len(ids)} tokens do not fit into a window of {self.window}")
        self._batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            self._batch.token[at], self._batch.pos[at] = token, self._read + at
            self._batch.n_seq_id[at], self._batch.seq_id[at][0] = 1, 0
            self._batch.logits[at] = every or at == len(ids) - 1
        failed = llama_cpp.llama_decode(self._context, self._batch)
        if self._eye and self._eye.problem:
            raise SmeltError(self._eye.problem)
        if failed:
            raise SmeltError(f"llama.cpp could not read {len(ids)} tokens (its code {failed})")
        self._read += len(ids)
        shape = (len(ids) if every else 1, self._vocab_size)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), shape).copy()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free(batch: llama_cpp.llama_batch, context: object, model: object) -> None:
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)


class _Tensor(ctypes.Structure):
    """The beginning of ggml_tensor (ggml/include/ggml.h): Python has no other way to what a product is made of."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]
_F32 = 0


def _accessor(name: str, result: type) -> Callable[[int], object]:
    function = getattr(_ggml.libggml, name)
    function.argtypes, function.restype = [ctypes.c_void_p], result
    return function


class _Eye:
    """llama.cpp's evaluation callback, which it asks of every node of the graph, and shows those that were wanted."""

    def __init__(self, watch: Watch) -> None:
        self.problem: str | None = None
        self._watch = watch
        self._kind = _accessor("ggml_op_desc", ctypes.c_char_p)
        self._name = _accessor("ggml_get_name", ctypes.c_char_p)
        self._data = _accessor("ggml_get_data", ctypes.c_void_p)
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._see)

    def _see(self, address: int, asks: bool, _: object) -> bool:
        try:
            return self._look(address, asks)
        except Exception as error:  # ctypes would print it and go on
            self.problem = f"llama.cpp's products cannot be looked at: {error}"
            return False

    def _look(self, address: int, asks: bool) -> bool:
        if self._kind(address) != b"MUL_MAT":
            return not asks
        weight, read = (ctypes.cast(address, ctypes.POINTER(_Tensor)).contents.src[at].contents for at in (0, 1))
        # What the library itself says of both must be found where this structure looks for it.
        if self._name(ctypes.addressof(weight)) != weight.name or self._data(ctypes.addressof(read)) != read.data:
            raise SmeltError("ggml_tensor has another layout than in the pinned llama-cpp-python")
        if not weight.name.endswith(b".weight"):
            return not asks
        if not asks:
            width, rows = read.ne[0], read.ne[1] * read.ne[2] * read.ne[3]
            if read.type != _F32 or read.nb[1] != 4 * width:
                raise SmeltError(f"{weight.name.decode()} is multiplied with something else than rows of float32")
            pointer = ctypes.cast(read.data, ctypes.POINTER(ctypes.c_float))
            self._watch(weight.name.decode(), np.ctypeslib.as_array(pointer, (rows, width)))
        return True
