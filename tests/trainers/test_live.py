"""What a run shows and leaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib.trainers.live import History, Meter, View
from tests.trainers.test_loop import CPU, FakeRun, trainer


class Measured:
    """A backend that can say all that one may know."""

    def describe(self) -> str:
        return "a device"

    def peak_flops(self, precision: str) -> float:
        return {"bf16": 2e12, "fp32": 1e12}[precision]

    def watts(self) -> float:
        return 45.0


class Engine:
    def memory_mib(self) -> float:
        return 312.4


def test_utilisation_is_of_the_peak_in_the_precision_used() -> None:
    assert Meter(Measured(), flops_per_token=1e8, precision="bf16").mfu(10_000) == pytest.approx(0.5)
    assert Meter(Measured(), flops_per_token=1e8, precision="fp32").mfu(10_000) == pytest.approx(1.0)
    assert Meter(Measured(), flops_per_token=None).mfu(10_000) is None


def test_the_line_says_all_that_is_known(tmp_path: Path) -> None:
    run = FakeRun(tmp_path)
    with View(run, Engine(), Meter(Measured(), 1e8, "bf16"), first=1, steps=3) as view:
        view.step(2, loss=5.25, tokens=1000, seconds=0.09, stalled=0.01)
        view.step(3, loss=5.125, tokens=1000, seconds=0.1, stalled=0.0)
    assert re.match(r"step 3/3: loss 5\.125, 10,000 tokens/s, MFU 50%, 312 MiB, 45 W, stall \d", run.said[-1])
    assert run.observed["device"] == "a device"
    assert run.observed["mfu"] == pytest.approx(0.5)
    assert run.observed["watts"] == 45.0
    assert run.observed["device_memory_mib"] == 312.4
    assert run.observed["tokens_per_second"] > 0


def test_a_real_run_says_what_it_observed(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=20)
    run.fit()
    assert re.match(r"step 20/20: loss \d\.\d+, [\d,]+ tokens/s, .*\d MiB", run._run.said[-1])
    observed = run._run.observed
    assert observed["device"] == CPU.describe()
    assert observed["tokens_per_second"] > 0
    assert 0 <= observed["stall_share"] < 1
    assert observed["device_memory_mib"] > 10


class Reports:
    """The part of a run that writes reports."""

    def __init__(self, root: Path) -> None:
        self.root, self.reports = root, root / "reports"
        self.reports.mkdir()

    def out(self, path: str) -> Path:
        return self.root / path


def test_the_history_as_csv(tmp_path: Path) -> None:
    row = {"step": 10, "tokens": 2560, "loss": 1 / 3}
    history = History(train=[{**row, "learning_rate": 2e-2, "gradient_norm": 1.5}], val=[{**row, "bits_per_byte": 2.0}])
    history.write(Reports(tmp_path))
    assert (tmp_path / "reports/train.csv").read_text() == (
        "step,tokens,loss,learning_rate,gradient_norm\n10,2560,0.333333,0.02,1.5\n"
    )
    assert (tmp_path / "reports/val.csv").read_text() == "step,tokens,loss,bits_per_byte\n10,2560,0.333333,2\n"
    (tmp_path / "none").mkdir()
    History().write(Reports(tmp_path / "none"))
    assert (tmp_path / "none/reports/train.csv").read_text() == "step,tokens,loss\n"
