"""Micro-batches that do not fit into memory: halved when they are `auto`, named when they are not.

Real allocations fail, in a process whose address space is limited.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.workspace import ROOT

PROGRAM = """
import resource, sys
import numpy as np, torch
from lib.backends.precision import Precision
from lib.backends.select import select_backend
from lib.pipeline.errors import SmeltError
from lib.trainers.engine import TorchEngine
from lib.trainers.loader import Batch

ROWS, LENGTH, VOCAB, WIDTH = {rows}, {length}, 32768, {width}  # fp32 logits of a row of 16: 2 MiB

class Objective(torch.nn.Module):
    def __init__(self):
        super().__init__()
        inner, outer = torch.nn.Embedding(VOCAB, WIDTH), torch.nn.Linear(WIDTH, VOCAB)
        self.model = torch.nn.Sequential(inner, torch.nn.Dropout(0.5), outer)

    def forward(self, inputs, labels, documents):
        logits = self.model(inputs)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")

torch.manual_seed(1)
objective = Objective()
optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
optimizer.param_groups[0]["peak"] = 1e-3
said = []
fp32 = Precision("fp32", None)
engine = TorchEngine(select_backend(), objective, [optimizer], 1, fp32, compiles=False, say=said.append)
said.clear()
tokens = np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH + 1))
batch = Batch(tokens[:, :-1], tokens[:, 1:], np.zeros((ROWS, LENGTH), np.int32))
small = Batch(*(part[:1, :2] for part in batch))
engine.gradient(small, 2)  # threads and caches are there
engine.discard()
torch.manual_seed(5)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {mib} * 2**20,) * 2)
try:
    losses = []
    for _ in range(2):
        losses.append({measure})
        engine.discard()
    engine.gradient(batch, ROWS * LENGTH)
    engine.update(1.0)
except SmeltError as error:
    sys.exit(f"refused: {error}")
print(*said, losses[0].hex(), sep=chr(10))
"""

GRADIENT = "engine.gradient(batch, ROWS * LENGTH)"


def run(
    mib: int, rows: int = 64, length: int = 16, width: int = 4, measure: str = GRADIENT, **environment: str
) -> subprocess.CompletedProcess[str]:
    program = PROGRAM
    for name, value in {"mib": mib, "rows": rows, "length": length, "width": width, "measure": measure}.items():
        program = program.replace(f"{{{name}}}", str(value))
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "SMELT_DEVICE": "cpu", "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_auto_goes_on_with_what_fits_and_a_fixed_size_is_refused_with_it() -> None:
    auto = run(300)
    assert auto.returncode == 0, auto.stderr
    # The heap of the C library keeps what a failed pass freed, now and then: the second step may want still less.
    said, *_, loss = auto.stdout.splitlines()
    found = re.fullmatch(
        r"a micro-batch of 64 rows does not fit into memory; going on with (\d+) rows? of 16 tokens, (\d+) a step", said
    )
    rows, pieces = map(int, found.groups())
    assert rows < 64
    assert pieces == -(-64 // rows)

    fixed = run(300, SMELT_MICRO_BATCH="64")
    assert fixed.returncode == 1
    assert "refused: a micro-batch of 64 rows does not fit into the memory of the device" in fixed.stderr
    assert int(re.search(r"Set SMELT_MICRO_BATCH=(\d+), or leave it unset", fixed.stderr)[1]) < 64

    # What was tried in vain left no trace, neither in the gradient nor in the random numbers of the dropout.
    assert run(4000, SMELT_MICRO_BATCH=str(rows)).stdout.strip() == loss


def test_validation_goes_on_with_what_fits_as_well() -> None:
    """It comes before the first step, and so before it is known what fits."""
    validated = run(200, measure="engine.loss_sum(batch)")
    assert validated.returncode == 0, validated.stderr
    said, *_, loss = validated.stdout.splitlines()
    rows = re.search(r"going on with (\d+) row", said)[1]
    assert run(4000, measure="engine.loss_sum(batch)", SMELT_MICRO_BATCH=rows).stdout.strip() == loss


def test_a_single_row_that_does_not_fit_is_refused() -> None:
    done = run(20, length=1024)  # logits of 128 MiB
    assert "refused: a single row of 1024 tokens does not fit into the memory of the device" in done.stderr
    assert "model.context_length" in done.stderr


def test_states_of_the_optimizer_that_do_not_fit_are_named() -> None:
    done = run(200, width=512, rows=1)  # weights of 128 MiB, moments of 256
    assert "refused: weights, gradients and the optimizer's states do not fit" in done.stderr
    assert "model.size" in done.stderr


@pytest.mark.parametrize("value", ["0", "many", "-3", "1.5"])
def test_what_is_no_number_of_rows_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from lib.pipeline.errors import SmeltError
    from lib.trainers.engine import micro_batch_rows

    monkeypatch.setenv("SMELT_MICRO_BATCH", value)
    with pytest.raises(SmeltError, match="number of rows, or auto"):
        micro_batch_rows()
