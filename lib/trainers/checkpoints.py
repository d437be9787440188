"""Checkpoints that are whole or absent: written aside, synced, renamed; the last few kept.

<folder>/step-00000200/
    model.safetensors        trained weights
    optimizer.safetensors    <optimizer>.<weight>.<name of the state>, and the state of the random generator
    state.json               step, history, and what else the loop has to remember
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

KEEP = 3


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(
    folder: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> None:
    """Write the checkpoint of `step` (that many steps are done) and remove all but the last KEEP."""
    final, aside = folder / f"step-{step:08d}", folder / "writing"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    save_file({name: weight.contiguous() for name, weight in _trained(model).items()}, aside / "model.safetensors")
    moments = {
        f"{place}.{number}.{name}": value.contiguous()
        for place, optimizer in enumerate(optimizers)
        for number, states in optimizer.state_dict()["state"].items()
        for name, value in states.items()
    }
    save_file({**moments, "random": torch.get_rng_state()}, aside / "optimizer.safetensors")
    (aside / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
    for file in aside.iterdir():
        _sync(file)
    _sync(aside)
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)


def restore(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any] | None:
    """Load the newest checkpoint into model and optimizers; its state, or None when there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    trained = _trained(model)
    saved = load_file(found[-1] / "model.safetensors")
    if saved.keys() != trained.keys():
        raise RuntimeError(f"{found[-1]} holds other weights than this model")
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(saved[name])
    moments = load_file(found[-1] / "optimizer.safetensors")
    torch.set_rng_state(moments.pop("random"))
    for place, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            owner, number, name = key.split(".")
            if int(owner) == place:
                states.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
