from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _one_process_many_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """accelerate keeps the precision of a process for good; and engines make torch deterministic.

    Models are not compiled unless a test asks for it: half a minute each.
    """
    monkeypatch.setenv("SMELT_COMPILE", "0")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)
