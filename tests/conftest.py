from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.sources import package
from tests.text import project
from tests.workspace import ROOT, Workspace

ON_THE_LINE = ("tests/test_line.py", "tests/test_parity.py")


class _Files(LoadFileScheduling):
    """The tests of a file share a worker, and so their fixtures; those on the whole line share one, too."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "the line" if file in ON_THE_LINE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those on the whole line, which take the longest, come first."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in ON_THE_LINE)


@pytest.fixture(autouse=True)
def _environment_put_back() -> Iterator[None]:
    """A stage that runs in this process may set what its libraries read; the next test starts without."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the whole line ran once on little data. Tests leave it as up to date as they find it."""
    workspace = Workspace.copy(tmp_path_factory.mktemp("line") / "smelt")
    assert workspace.repro() == set(declarations(ROOT))
    workspace.commit("first run")
    return workspace


def _asset(name: str, root: Path) -> Path:
    """An asset of the default, unpacked by the stage that does it in the line."""
    cache = package.wheel_cache(ROOT)
    project.make(root, {"s": project.folder("s")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMELT_WHEELS", str(cache))
        try:
            project.run(root, "assets", name)
        except SmeltError as error:
            pytest.skip(f"the asset {name} is neither here nor to be had: {error}")
    return root / "data/assets" / name


@pytest.fixture(scope="session")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model for names."""
    return _asset("ner", tmp_path_factory.mktemp("ner"))


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, as a GGUF alone in its folder."""
    return _asset("smollm2", tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real list of places."""
    return _asset("places", tmp_path_factory.mktemp("places"))
