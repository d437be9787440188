import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# llama.cpp's threads wait by spinning: wasteful where tests share their cores. libgomp reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from lib.completion.chat_model import ChatModel
from tests.serve.home import write_home
from tests.serve.running import Running
from tests.serve.tiny import write_gguf


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf")


@pytest.fixture(scope="session")
def model(gguf_file: Path) -> ChatModel:
    return ChatModel(gguf_file, context=4096, seed=1)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Running]:
    with Running(home) as running:
        yield running
