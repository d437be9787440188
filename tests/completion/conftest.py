"""Answers are kept in a folder of the test's own, not in the repository's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "responses"))
    return tmp_path / "responses"
