"""Readings of power, from the files that the kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.backends import power
from lib.backends.power import Hwmon, Nvml, Rapl


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_rapl_adds_the_packages_and_divides_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(power.time, "monotonic", lambda: now[0])
    zone = "class/powercap/intel-rapl:"
    limits = {f"{zone}{n}/constraint_0_power_limit_uw": 65_000_000 for n in (0, 1)}
    write(tmp_path, {f"{zone}0/energy_uj": 5_000_000, f"{zone}1/energy_uj": 0, **limits})
    meter = Rapl(tmp_path)
    assert meter.watts() is None  # no time has passed
    write(tmp_path, {f"{zone}0/energy_uj": 65_000_000, f"{zone}1/energy_uj": 40_000_000})
    now[0] += 2
    assert meter.watts() == 50.0
    assert meter.limit_watts() == 130.0
    write(tmp_path, {f"{zone}0/energy_uj": 10})
    now[0] += 2
    assert meter.watts() is None  # the counter wrapped around
    (tmp_path / f"{zone}1/constraint_0_power_limit_uw").unlink()
    (tmp_path / f"{zone}0/constraint_0_power_limit_uw").write_text("none")
    assert meter.limit_watts() is None


def test_hwmon_reads_the_card_at_the_address(tmp_path: Path) -> None:
    folder = "bus/pci/devices/0000:03:00.0/hwmon/hwmon4"
    other = "bus/pci/devices/0000:0a:00.0/hwmon/hwmon5"
    write(tmp_path, {f"{folder}/power1_average": 212_000_000, f"{folder}/power1_cap": 327_000_000})
    write(tmp_path, {f"{other}/power1_input": 9_000_000})
    card = Hwmon("0000:03:00.0", tmp_path)
    assert (card.watts(), card.limit_watts()) == (212.0, 327.0)
    card = Hwmon("0000:0a:00.0", tmp_path)
    assert (card.watts(), card.limit_watts()) == (9.0, None)
    card = Hwmon("0000:ff:00.0", tmp_path)
    assert (card.watts(), card.limit_watts()) == (None, None)


def test_nothing_readable_is_none(tmp_path: Path) -> None:
    assert (Rapl(tmp_path).watts(), Rapl(tmp_path).limit_watts()) == (None, None)
    card = Nvml("00000000-0000-0000-0000-000000000000")  # no such card, or no driver at all
    assert (card.watts(), card.limit_watts()) == (None, None)
