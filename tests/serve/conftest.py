import os
from pathlib import Path

import pytest

# llama.cpp's threads wait by spinning: wasteful where tests share their cores. libgomp reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from lib.completion.chat_model import ChatModel
from tests.serve.tiny import write_gguf


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf")


@pytest.fixture(scope="session")
def model(gguf_file: Path) -> ChatModel:
    return ChatModel(gguf_file, context=4096, seed=1)
