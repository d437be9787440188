"""Models in GGUF files: in this process, and behind llama-cpp-python's own server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from lib.completion.chat_model import ChatModel
from lib.completion.types import Completion, Request
from lib.pipeline.errors import SmeltError
from tests.completion.server import endpoint, request
from tests.serve.tiny import write_gguf

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["question", "answer"],
    "additionalProperties": False,
}
PASSAGE = "Write a question about this text, and its answer.\n\nMount Etna is a volcano. It is 3,403 metres high."
CAPITAL = Request(
    [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    max_tokens=12,
    temperature=0.0,
    seed=1,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tiny model: it writes small letters, and at last the end of its turn."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "models").mkdir()
    write_gguf(folder / "models/tiny.gguf")
    return folder


def ask(root: Path, requests: list[Request], **changes: object) -> list:
    with endpoint("http://127.0.0.1:9/v1", root, kind="gguf", path="models", context=256, **changes) as model:
        return list(model.complete_all(requests))


def test_an_answer_depends_on_nothing_that_was_asked_before(root: Path, tmp_path: Path, monkeypatch) -> None:
    """Neither on a prompt that begins alike, nor on draws for another answer."""
    requests = [request(text, 12, temperature=1.0, seed=seed) for text in ("a b", "a b c", "z") for seed in (1, 2)]
    together = ask(root, requests)
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "others"))
    alone = [ask(root, [one])[0] for one in reversed(requests)]
    assert together == alone[::-1]
    assert len({answer.text for answer in together}) == len(together)
    assert all(isinstance(answer, Completion) for answer in together)


@pytest.mark.parametrize("seed", range(3))
def test_with_a_schema_nothing_but_json_of_that_form_can_come(root: Path, seed: int) -> None:
    """This model knows no quotation mark: left alone, it writes none."""
    choice = {"type": "object", "properties": {"b": {"enum": ["yes", "no"]}}, "required": ["b"]}
    (answer,) = ask(root, [request("x", 40, schema=choice, temperature=1.0, seed=seed)])
    jsonschema.validate(json.loads(answer.text), choice)


def test_strings_hold_no_line_ends(root: Path) -> None:
    """llama-cpp-python's own grammar lets them in, and the JSON is none then."""
    model = ChatModel(root / "models/tiny.gguf", 256, seed=0)
    ids = model.encode([{"role": "user", "content": "x"}])
    text, _, _ = model.complete(ids, 200, 5.0, 1, {"type": "string", "minLength": 60})
    assert len(text) > 60
    assert not [character for character in text if ord(character) < 32 or ord(character) == 127]


def test_what_does_not_fit_the_context_is_rejected_and_costs_nothing(root: Path) -> None:
    with endpoint("http://127.0.0.1:9/v1", root, kind="gguf", path="models", context=256) as model:
        long, fits = model.complete_all([request("x" * 240, 20), request("x", 20)])
        assert long.reason == "too_long"
        assert fits.finish in ("stop", "length")
        assert model.cost.requests == 1


def test_cached_answers_need_no_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(root, [request("hello")])
    loaded: list[Path] = []
    monkeypatch.setattr(ChatModel, "__init__", lambda self, path, *_, **__: loaded.append(path))
    assert ask(root, [request("hello")]) == first
    assert not loaded


def test_the_same_content_under_another_name_is_the_same_model(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "models", tmp_path / "copy/models")
    (tmp_path / "copy/models/tiny.gguf").rename(tmp_path / "copy/models/other.gguf")
    first = ask(root, [request("hello")])
    with endpoint("http://x/v1", tmp_path / "copy", kind="gguf", path="models", context=256) as model:
        assert list(model.complete_all([request("hello")])) == first
        assert model.asked == 0


def test_one_file_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(SmeltError, match=r"must hold one \.gguf file \(there is: none\)"):
        ask(tmp_path, [request("x")])
    for name in "ab":
        write_gguf(tmp_path / f"models/{name}.gguf")
    with pytest.raises(SmeltError, match=r"there is: a\.gguf, b\.gguf\)"):
        ask(tmp_path, [request("x")])


# ----------------------------------------------------------------------------------------------------------------------
# SmolLM2, here and served


def test_smollm2_answers_in_form(smollm2: Path) -> None:
    root = smollm2.parents[2]
    with endpoint("http://127.0.0.1:9/v1", root, kind="gguf") as model:
        capital, pair = model.complete_all([CAPITAL, request(PASSAGE, 80, schema=SCHEMA)])
        assert "Paris" in capital.text
        assert model.identity.startswith("gguf sha256:b179c952")
    jsonschema.validate(json.loads(pair.text), SCHEMA)


@pytest.fixture(scope="module")
def served(smollm2: Path) -> Iterator[str]:
    """The address of llama-cpp-python's server with SmolLM2."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (file,) = smollm2.glob("*.gguf")
    settings = ["--model", str(file), "--n_ctx", "512", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "llama_cpp.server", *settings, "--verbose", "false", "--n_threads", "2"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as server:
        url = f"http://127.0.0.1:{port}/v1"
        try:
            while True:
                assert server.poll() is None, "the server has ended"
                try:
                    urllib.request.urlopen(f"{url}/models", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.1)
            yield url
        finally:
            server.terminate()


def test_llama_cpp_pythons_server_is_understood(served: str, tmp_path: Path) -> None:
    with endpoint(served, tmp_path, structured="json_object", timeout_seconds=60) as model:
        capital, pair, long = model.complete_all(
            [
                CAPITAL,
                request(PASSAGE, 80, schema=SCHEMA),
                request("x " * 600, 12),
            ]
        )
        assert "Paris" in capital.text
        assert capital.tokens_in > 20  # with the template's own
        assert long.reason == "bad_request"
        assert "512" in long.detail  # what the server says of its context
    jsonschema.validate(json.loads(pair.text), SCHEMA)
    with endpoint(served, tmp_path, timeout_seconds=60) as model, pytest.raises(SmeltError, match="json_schema"):
        model.complete([{"role": "user", "content": "x"}], max_tokens=2, temperature=0, seed=1, schema=SCHEMA)
