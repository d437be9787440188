"""The measured rate: what it counts, and how it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.backends import peak_rate
from lib.backends.cpu import Cpu


class Sleeper:
    """A device that takes the given seconds for a product, one after the other."""

    model_name, matrix_size = "sleeper", 1000

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.products = list(seconds), 0

    def product(self, size: int, precision: str) -> Callable[[], None]:
        def multiply() -> None:
            time.sleep(self.seconds[self.products % len(self.seconds)])
            self.products += 1

        return multiply


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peak_rate, "SECONDS", 0.0)
    monkeypatch.setattr(peak_rate, "AGAIN_SECONDS", 0.0)
    return tmp_path / "smelt" / "peak_rates.json"


def test_the_quickest_product_counts(cache: Path) -> None:
    rate = peak_rate.peak_rate(Sleeper(0.05, 0.03, 0.01, 0.03), "fp32")
    assert 2e9 / 0.02 < rate <= 2e9 / 0.01


def test_the_highest_rate_is_kept(cache: Path) -> None:
    quick = peak_rate.peak_rate(Sleeper(0.002), "fp32")
    assert peak_rate.peak_rate(Sleeper(0.02), "fp32") == quick  # a machine that is busy now
    assert peak_rate.peak_rate(Sleeper(0.0005), "fp32") > quick  # or was busy then
    assert peak_rate.peak_rate(Sleeper(0.02), "bf16") < quick  # one of its own for each precision
    assert len(peak_rate._read(cache)) == 2


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"a": "b"}', '{"a": null}'])
def test_a_torn_cache_is_measured_again(cache: Path, torn: str) -> None:
    cache.parent.mkdir()
    cache.write_text(torn)
    rate = peak_rate.peak_rate(Sleeper(0.001), "fp32")
    assert list(peak_rate._read(cache).values()) == [rate]


def test_a_home_without_room_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert peak_rate.peak_rate(Sleeper(0.001), "fp32") > 0


def test_a_processor_multiplies(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "matrix_size", 256)
    assert 1e8 < Cpu().peak_flops("fp32") < 1e14
