from __future__ import annotations

import pytest

from lib.pipeline.declarations import declarations
from tests.workspace import ROOT, Workspace


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the whole line ran once on little data. Tests leave it as up to date as they find it."""
    workspace = Workspace.copy(tmp_path_factory.mktemp("line") / "smelt")
    assert workspace.repro() == set(declarations(ROOT))
    workspace.commit("first run")
    return workspace
