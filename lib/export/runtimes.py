"""One exported model in the program that it is for, each behind the same three calls.

logits(ids)      (len(ids), vocabulary): after each token of a text that begins with them
begin(ids)       (vocabulary,): after the last of them; what was read before is forgotten
step(token)      (vocabulary,): after one more
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib.export.llama import Reader
from lib.pipeline.errors import SmeltError

Logits = NDArray[np.float32]


class Runtime(Protocol):
    timed: bool  # whether it is as fast as the program that others run the file with

    def logits(self, ids: Sequence[int]) -> Logits: ...

    def begin(self, ids: Sequence[int]) -> Logits: ...

    def step(self, token: int) -> Logits: ...


class Transformers:
    """A Hugging Face directory in the type that it is stored in, or in `dtype`."""

    timed = True

    def __init__(self, folder: Path, threads: int, dtype: str = "auto") -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False).eval()
        self._cache: Any = None

    def _run(self, ids: Sequence[int], cached: bool) -> Logits:
        with self._torch.inference_mode():
            output = self._model(
                input_ids=self._torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=cached
            )
        self._cache = output.past_key_values if cached else None
        return output.logits[0].float().numpy()

    def logits(self, ids: Sequence[int]) -> Logits:
        self._cache = None
        return self._run(ids, cached=False)

    def begin(self, ids: Sequence[int]) -> Logits:
        self._cache = None
        return self._run(ids, cached=True)[-1]

    def step(self, token: int) -> Logits:
        return self._run([token], cached=True)[-1]


class LlamaCpp:
    """A GGUF file, with a LoRA adapter beside it where one is given."""

    timed = True

    def __init__(self, path: Path, window: int, threads: int, adapter: Path | None = None) -> None:
        self._reader = Reader(path, window, threads, adapter)

    def logits(self, ids: Sequence[int]) -> Logits:
        self._reader.clear()
        return self._reader.read(ids, every=True)

    def begin(self, ids: Sequence[int]) -> Logits:
        self._reader.clear()
        return self._reader.read(ids, every=False)[0]

    def step(self, token: int) -> Logits:
        return self._reader.read([token], every=False)[0]


class OnnxRuntime:
    """An ONNX file with a cache, on the processor."""

    timed = True

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of onnxruntime, which has no common class of them
            raise SmeltError(f"onnxruntime cannot load {path}: {str(error).splitlines()[0]}") from None
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        self._positions = "position_ids" in inputs
        self._empty = {
            name: np.zeros((1, shape[1], 0, shape[3]), np.float32)
            for name, shape in inputs.items()
            if name.startswith("past_key_values.")
        }
        self._past = self._empty

    def _run(self, ids: Sequence[int]) -> Logits:
        read = next(iter(self._past.values())).shape[2]
        feeds = {
            "input_ids": np.asarray([ids], np.int64),
            "attention_mask": np.ones((1, read + len(ids)), np.int64),
            "position_ids": np.arange(read, read + len(ids), dtype=np.int64)[None],
            **self._past,
        }
        if not self._positions:  # an architecture that needs none
            del feeds["position_ids"]
        logits, *present = self._session.run(None, feeds)
        self._past = dict(zip(self._empty, present, strict=True))
        return logits[0]

    def logits(self, ids: Sequence[int]) -> Logits:
        self._past = self._empty
        return self._run(ids)

    def begin(self, ids: Sequence[int]) -> Logits:
        return self.logits(ids)[-1]

    def step(self, token: int) -> Logits:
        return self._run([token])[-1]


class Mlx:
    """A directory that mlx-lm loads, quantised or not, in fp32: without a GPU MLX's float16 is 30 times as slow.

    It is not timed, as a Mac computes on its GPU.
    """

    timed = False

    def __init__(self, folder: Path) -> None:
        import mlx.core as mx
        from mlx.utils import tree_map
        from mlx_lm.models.cache import make_prompt_cache
        from mlx_lm.utils import load_model

        def widen(value: mx.array) -> mx.array:  # what is packed in integers stays so
            return value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value

        self._array, self._new_cache = mx.array, make_prompt_cache
        self._model, _ = load_model(folder)
        self._model.update(tree_map(widen, self._model.parameters()))
        self._cache: Any = None

    def _run(self, ids: Sequence[int], cache: Any) -> Logits:
        return np.array(self._model(self._array([list(ids)]), cache=cache)[0])

    def logits(self, ids: Sequence[int]) -> Logits:
        return self._run(ids, None)

    def begin(self, ids: Sequence[int]) -> Logits:
        self._cache = self._new_cache(self._model)
        return self._run(ids, self._cache)[-1]

    def step(self, token: int) -> Logits:
        return self._run([token], self._cache)[-1]
