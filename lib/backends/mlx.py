"""MLX: Apple's own arrays, on the GPU of Apple silicon, and on the processor elsewhere.

lib/trainers/mlx_engine.py trains with it, and lib/trainers/mlx_finetuning.py beside adapters. The rest of the line,
such as evaluation, runs on torch's device of the same machine.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lib.backends.backend import Backend, Compilation
from lib.backends.cpu import system_memory_mib
from lib.pipeline.record import cpu_model, peak_kib


class Mlx(Backend):
    name = "mlx"
    framework = "mlx"
    collectives = None

    def __init__(self) -> None:
        import mlx.core as mx

        self._mx, self._metal = mx, mx.metal.is_available()
        self.device = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        self.precisions = ("fp32", "bf16") if self._metal else ("fp32",)
        self.matrix_size = 4096 if self._metal else 512

    @property
    def model_name(self) -> str:
        return cpu_model()

    def compilation(self) -> Compilation:
        if self._metal:
            return Compilation(True, "on, MLX's own")
        return Compilation(False, "off: on a processor, MLX calls a C++ compiler for each small piece")

    def memory_mib(self) -> float:
        return self._mx.get_peak_memory() / 2**20 if self._metal else peak_kib() / 1024

    def total_memory_mib(self) -> float:
        if self._metal:
            return self._mx.device_info()["max_recommended_working_set_size"] / 2**20
        return system_memory_mib()

    def product(self, size: int, precision: str) -> Callable[[], None]:
        mx = self._mx
        dtype = {"fp32": mx.float32, "bf16": mx.bfloat16}[precision]
        left, right = (mx.random.normal((size, size), key=mx.random.key(place)).astype(dtype) for place in range(2))
        return lambda: mx.eval(left @ right)

    def describe(self) -> str:
        return f"{super().describe()}, {self._mx.default_device()}"
