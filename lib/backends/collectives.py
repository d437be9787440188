"""How processes exchange gradients, by the name that torch knows it by."""

from __future__ import annotations

import os

from lib.backends.backend import Backend
from lib.pipeline.errors import SmeltError

RCCL = "torch calls AMD's collectives nccl and runs RCCL underneath; it refuses the name rccl, so nccl is used"


def collectives(backend: Backend, name: str | None = None) -> tuple[str, str]:
    """The name for torch.distributed, and what to tell the user about it ("" for nothing).

    Args:
        name: what the user asked for; None: what SMELT_COLLECTIVES says, else the backend's own.

    Raises:
        SmeltError: devices of this backend cannot exchange gradients so.
    """
    if backend.collectives is None:
        raise SmeltError(f"{backend.name} trains in one process only; SMELT_LAUNCHER needs cpu, cuda or rocm")
    name = name or os.environ.get("SMELT_COLLECTIVES") or backend.collectives
    if name == "rccl" and backend.name == "rocm":
        return "nccl", RCCL
    if name not in (backend.collectives, "gloo"):  # gloo goes everywhere, through the processor's memory
        known = " or ".join(sorted({backend.collectives, "gloo"} | ({"rccl"} if backend.name == "rocm" else set())))
        raise SmeltError(f"SMELT_COLLECTIVES is {name!r}; {backend.name} has {known}")
    return name, ""
