from pathlib import Path

import pytest

from lib.rag.bert import Bert
from tests.rag.postgres import postgres
from tests.rag.tiny import write_embedder

__all__ = ["postgres"]


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("assets") / "minilm")


@pytest.fixture(scope="session")
def embedder(embedder_folder: Path) -> Bert:
    return Bert(embedder_folder, workers=2, bf16=False)  # to be compared to the last digits
