from pathlib import Path

import pytest

from lib.rag.embed import Embedder
from tests.rag.tiny import write_embedder


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("assets") / "minilm")


@pytest.fixture(scope="session")
def embedder(embedder_folder: Path) -> Embedder:
    return Embedder(embedder_folder, workers=2)
