"""An embedder behind the OpenAI API: a server on this machine, asked by the openai package."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.params.retrieval import EmbedderSettings
from lib.pipeline.errors import SmeltError
from lib.rag.bert import Bert
from lib.rag.embed import check_same, load_embedder
from lib.rag.search import Retriever
from tests.rag.tiny import document, settings, write_index

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Server:
    """Attributes: `asked`, bodies and headers of the requests; `answer`, which makes status and content of a body."""

    def __init__(self, embedder: Bert) -> None:
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.good: Answer = lambda body: (200, {"object": "list", "model": body["model"], "data": [
            {"object": "embedding", "index": n, "embedding": (3 * vector).tolist()}  # not of length 1
            for n, vector in enumerate(embedder.encode(body["input"]))
        ][::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}})  # fmt: skip
        self.answer = self.good
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((body, dict(self.headers)))
                status, content = server.answer(body) if self.path == "/v1/embeddings" else (404, {})
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(embedder: Bert) -> Iterator[Server]:
    server = Server(embedder)
    yield server
    server.close()


def of(server: Server | str, **changes: Any) -> EmbedderSettings:
    values = settings().embedder.model_dump()
    url = server if isinstance(server, str) else server.url
    values["openai"] |= {"url": url, "model": "m", "batch": 2} | changes
    return EmbedderSettings.model_validate(values | {"kind": "openai", "folder": "data/assets/minilm"})


@pytest.fixture
def root(embedder_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "data/assets").mkdir(parents=True)
    (tmp_path / "data/assets/minilm").symlink_to(embedder_folder)
    return tmp_path


def test_vectors_come_in_order_and_normalised(server: Server, root: Path, embedder: Bert) -> None:
    remote = load_embedder(of(server, prefix="passage: ", question_prefix="query: "), root, 1)
    texts = ["the list", "bucket", "the bucket list"]
    found = remote.encode(texts)
    assert remote.dimension == 32
    np.testing.assert_allclose(found, embedder.encode([f"passage: {text}" for text in texts]), atol=1e-5)
    np.testing.assert_allclose(remote.encode_questions(["why"]), embedder.encode(["query: why"]), atol=1e-5)
    assert [len(body["input"]) for body, _ in server.asked] == [1, 2, 1, 1]  # the probe, then in batches
    assert remote.encode([]).shape == (0, 32)


def test_an_index_is_built_and_searched_with_it(server: Server, root: Path) -> None:
    wanted = of(server).model_dump()
    documents = [document("list", "the list the bucket"), document("other", "q w z")]
    folder = write_index(root / "index", None, documents, embedder=wanted, root=root)
    with Retriever.open(folder, stores=root / "stores", root=root) as retriever:
        assert retriever.search("the list the bucket")[0].passage.document == "docs/list"


def test_another_model_behind_the_same_name_is_refused(server: Server, root: Path) -> None:
    first = load_embedder(of(server), root, 1)
    facts = {"fingerprint": first.fingerprint, "dimension": first.dimension, "probe": first.probe}
    check_same(facts, load_embedder(of(server), root, 1), "the index")
    with pytest.raises(SmeltError, match="another embedder"):
        check_same(facts, load_embedder(of(server, model="n"), root, 1), "the index")
    flip = np.where(np.arange(32) % 2, -3.0, 3.0).tolist()
    server.answer = lambda body: (200, {"data": [{"index": 0, "embedding": flip, "object": "embedding"}]})
    with pytest.raises(SmeltError, match="another embedder"):
        check_same(facts, load_embedder(of(server), root, 1), "the index")


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-server")
    load_embedder(of(server), root, 1)
    assert "of-another-server" not in str(server.asked)
    with pytest.raises(SmeltError, match="wants a key: the environment variable MY_KEY holds none"):
        load_embedder(of(server, key="MY_KEY"), root, 1)
    monkeypatch.setenv("MY_KEY", "s3cret")
    load_embedder(of(server, key="MY_KEY"), root, 1)
    assert server.asked[-1][1]["Authorization"] == "Bearer s3cret"
    server.answer = lambda body: (401, {"error": {"message": "wrong key s3cret"}})
    with pytest.raises(SmeltError, match=r"m at http.* refuses: .*\[key\]") as caught:
        load_embedder(of(server, key="MY_KEY"), root, 1)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": []}, "something other than"),
        ({"data": [{"index": 0, "embedding": ["x"]}]}, "something other than"),
        ({"data": [{"index": 0, "embedding": []}]}, "something other than"),
        ({"hello": "world"}, "something other than"),
        (b"<html>", "something other than"),
    ],
)
def test_rubbish_is_one_message(server: Server, root: Path, content: Any, message: str) -> None:
    server.answer = lambda body: (200, content)
    with pytest.raises(SmeltError, match=message):
        load_embedder(of(server), root, 1)


def test_what_fails_in_passing_is_tried_again(server: Server, root: Path) -> None:
    failures = iter([503, 429])
    server.answer = lambda body: (status, {}) if (status := next(failures, None)) else server.good(body)
    assert load_embedder(of(server, retries=2), root, 1).dimension == 32
    server.answer = lambda body: (500, {"error": "down"})
    with pytest.raises(SmeltError, match="refuses"):
        load_embedder(of(server, retries=0), root, 1)


def test_a_server_that_is_down_is_one_message(root: Path) -> None:
    with pytest.raises(SmeltError, match=r"m at http://127\.0\.0\.1:9/v1 cannot be reached.*Is the server running"):
        load_embedder(of("http://127.0.0.1:9/v1", retries=0), root, 1)
