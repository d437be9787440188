"""Where to compute and how: the one place that asks what hardware there is."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import torch

from lib.backends.backend import Backend, Compilation
from lib.backends.cpu import Cpu
from lib.backends.gpu import Cuda, Rocm
from lib.backends.mlx import Mlx
from lib.backends.mps import Mps
from lib.pipeline.errors import SmeltError

__all__ = ["Backend", "compile_policy", "present", "select_backend"]


def present() -> dict[str, Callable[[], Backend]]:
    """The backends of this machine and this installation by name, the one to be preferred first.

    mlx stands last: on Apple silicon torch's mps runs the whole line, mlx the training alone.
    """
    gpu = Rocm if torch.version.hip else Cuda
    found = {
        gpu.name: (gpu, torch.cuda.is_available()),
        Mps.name: (Mps, torch.backends.mps.is_available()),
        Cpu.name: (Cpu, True),
        Mlx.name: (Mlx, importlib.util.find_spec("mlx") is not None),
    }
    return {name: make for name, (make, here) in found.items() if here}


def select_backend(mlx: bool = False) -> Backend:
    """The backend that SMELT_DEVICE names (cpu, cuda, rocm, mps, mlx), else the best one present.

    Args:
        mlx: whether the caller can train with MLX. The others get torch's best backend where mlx is asked for.

    Raises:
        SmeltError: an unknown name, or hardware that this machine or this build of torch does not have.
    """
    here = present()
    name = os.environ.get("SMELT_DEVICE") or next(iter(here))
    if name not in here:
        raise SmeltError(f"SMELT_DEVICE is {name!r}; this machine and this build of torch have: {', '.join(here)}")
    if name == Mlx.name and not mlx:
        name = next(iter(here))
    return here[name]()


def compile_policy(backend: Backend) -> Compilation:
    """Whether to compile: as SMELT_COMPILE says (0 or 1), else as the backend has it. The reason is for the log.

    Raises:
        SmeltError: SMELT_COMPILE is neither 0 nor 1, or it is 1 and something that compiling needs is missing.
    """
    asked = os.environ.get("SMELT_COMPILE", "")
    if asked not in ("", "0", "1"):
        raise SmeltError(f"SMELT_COMPILE is {asked!r}; it must be 0, 1, or left out")
    own = backend.compilation()
    if asked == "1" and not own.possible:
        raise SmeltError(f"SMELT_COMPILE is 1, but compiling is {own.reason}")
    if asked:
        return Compilation(asked == "1", f"{'on' if asked == '1' else 'off'}, as SMELT_COMPILE says")
    return own
