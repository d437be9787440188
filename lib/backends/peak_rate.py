"""What this machine's matrix products really reach: the peak that the trainer's share (MFU) is of.

Makers state the peak of the silicon, which no program sees at the clock that power allows. Here large square matrices
are multiplied for a second and the quickest product counts. The rate is kept in the user's cache. A machine that was
busy then showed too little, so each later run measures a moment more, and the highest rate counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

SECONDS = 1.0
AGAIN_SECONDS = 0.2


class Multiplier(Protocol):
    """The part of a backend that this module needs."""

    matrix_size: int

    @property
    def model_name(self) -> str: ...

    def product(self, size: int, precision: str) -> Callable[[], None]: ...


def cache_file() -> Path:
    """Where rates are kept: in the user's cache folder, outside of any project."""
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "smelt" / "peak_rates.json"


def measure(backend: Multiplier, precision: str, seconds: float = SECONDS) -> float:
    """Operations per second of the quickest of the products that fit into `seconds`, of three at least."""
    size = backend.matrix_size
    multiply = backend.product(size, precision)
    multiply()  # starts threads, loads kernels
    quickest, until, count = float("inf"), time.perf_counter() + seconds, 0
    while count < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        multiply()
        quickest = min(quickest, time.perf_counter() - started)
        count += 1
    return 2 * size**3 / quickest


def peak_rate(backend: Multiplier, precision: str) -> float:
    """The highest rate that this machine has shown in `precision`, with this torch and as many threads."""
    key = f"{backend.model_name} | torch {torch.__version__} | {precision} | {torch.get_num_threads()} threads"
    path = cache_file()
    known = _read(path).get(key, 0.0)
    rate = measure(backend, precision, AGAIN_SECONDS if known else SECONDS)
    if rate <= known:
        return known
    _write(path, {**_read(path), key: rate})
    return rate


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: float(rate) for key, rate in found.items() if float(rate) > 0}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or torn: it is only a cache
        return {}


def _write(path: Path, rates: dict[str, float]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(rates, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError:  # a home that cannot be written to: measured again next time
        return
