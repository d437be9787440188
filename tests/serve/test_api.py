"""The API in this process: what requests mean, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from lib.pipeline.errors import SmeltError
from lib.rag.search import Retriever
from lib.serve.api import Settings, create_app
from lib.serve.documents import Documents
from lib.serve.guard import Bucket
from lib.serve.model import ServedModel, Token
from tests.serve import home as made

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def retriever(home: Path) -> Iterator[Retriever]:
    with Retriever.open(home / "models/index", stores=home / "copies", root=home) as found:
        yield found


class _Shared:
    """Documents whose retriever outlives the application."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def __getattr__(self, name: str) -> Any:
        return getattr(self._retriever, name)

    def close(self) -> None:
        pass


def serving(model: ServedModel, retriever: Retriever | None = None, sources: Sequence[str] | None = None, **settings):
    documents = None if retriever is None else Documents(_Shared(retriever), sources)  # type: ignore[arg-type]
    values = {"name": "tiny", "max_tokens": 64, "temperature": 0.0, "waiting": 4, "hosts": ["testserver"], **settings}
    return TestClient(create_app(Settings(**values), model, documents), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def plain(gguf_file: Path) -> Iterator[TestClient]:
    """Random letters, 256 tokens of context."""
    with serving(ServedModel(gguf_file, 4096, seed=0)) as client:
        yield client


@pytest.fixture(scope="module")
def reciter(home: Path) -> ServedModel:
    return ServedModel(home / "models/export/gguf/tiny-Q8_0.gguf", 4096, seed=0)


@pytest.fixture(scope="module")
def docs(reciter: ServedModel, retriever: Retriever) -> Iterator[TestClient]:
    with serving(reciter, retriever) as client:
        yield client


def question(text: str, model: str = "tiny", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def ask(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def stream(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = client.post(path, json={**body, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last, nothing = response.text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def refused(client: TestClient, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# -- models and answers


def test_two_models_are_listed_where_there_is_an_index(plain: TestClient, docs: TestClient) -> None:
    assert [model["id"] for model in docs.get("/v1/models").json()["data"]] == ["tiny", "tiny-docs"]
    assert [model["id"] for model in plain.get("/v1/models").json()["data"]] == ["tiny"]
    assert docs.get("/v1/models/tiny-docs").json()["object"] == "model"
    assert "no index" in refused(plain, CHAT, question("a", "tiny-docs"), 404)["message"]
    assert refused(plain, CHAT, question("a", "gpt-4"), 404)["code"] == "model_not_found"


def test_a_stream_has_the_answer_of_the_whole(plain: TestClient) -> None:
    body = question("why?", logprobs=True, top_logprobs=2, seed=4, temperature=0.9)
    whole = ask(plain, CHAT, body)
    chunks = stream(plain, CHAT, body | {"stream_options": {"include_usage": True}})
    (choice,) = whole["choices"]
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == choice["message"]["content"] != ""
    assert [delta["finish_reason"] for delta in deltas][-1] == choice["finish_reason"] == "stop"
    parts = [token for delta in deltas if delta["logprobs"] for token in delta["logprobs"]["content"]]
    assert parts == choice["logprobs"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_text_goes_on_as_from_its_tokens(plain: TestClient, gguf_file: Path) -> None:
    model = ServedModel(gguf_file, 256, seed=0)
    whole = ask(plain, TEXT, {"model": "tiny", "prompt": "the buckets", "max_tokens": 5, "logprobs": 1})
    ids = model.encode_text("the buckets")
    assert (
        ask(plain, TEXT, {"model": "tiny", "prompt": ids, "max_tokens": 5, "logprobs": 1})["choices"]
        == whole["choices"]
    )
    pieces = [
        chunk["choices"][0]
        for chunk in stream(plain, TEXT, {"model": "tiny", "prompt": "the buckets", "max_tokens": 5})
    ]
    assert "".join(piece["text"] for piece in pieces) == whole["choices"][0]["text"]
    logprobs = whole["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == whole["usage"]["completion_tokens"]
    assert [list(top.values())[0] for top in logprobs["top_logprobs"]] == logprobs["token_logprobs"]  # noqa: RUF015


def test_an_answer_ends_at_a_stop_text_and_at_its_limit(docs: TestClient) -> None:
    (choice,) = ask(docs, CHAT, question("?", stop=[" so", "never"]))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("**Yes**, it is", "stop")
    for name in ("max_tokens", "max_completion_tokens"):
        (choice,) = ask(docs, CHAT, question("?", **{name: 2}))["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("**Yes**, it", "length")
    assert ask(docs, CHAT, question("?"))["choices"][0]["message"]["content"] == made.SAID


def test_a_schema_gives_json(plain: TestClient) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    for seed in range(4):
        answer = ask(plain, CHAT, question("a", response_format=form, temperature=1.0, seed=seed))
        jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), schema)
    beginning = ask(plain, CHAT, question("a", response_format={"type": "json_object"}, max_tokens=9))
    assert beginning["choices"][0]["message"]["content"].startswith("{")
    form["json_schema"]["schema"] = {"type": "integer", "maximum": 3}
    assert "'maximum'" in refused(plain, CHAT, question("a", response_format=form))["message"]


def test_messages_may_come_in_parts_and_from_a_client_that_sends_answers_back(plain: TestClient) -> None:
    answer = ask(plain, CHAT, question("why?"))["choices"][0]["message"]
    parts = [{"type": "text", "text": "w"}, {"type": "text", "text": "hy?"}]
    assert ask(plain, CHAT, question(parts))["choices"][0]["message"] == answer
    ask(
        plain,
        CHAT,
        {"model": "tiny", "messages": [{"role": "developer", "content": "be"}, answer, *question("a")["messages"]]},
    )


def test_vectors_are_the_embedders(docs: TestClient, retriever: Retriever, plain: TestClient) -> None:
    texts = ["the list", "bucket"]
    expected = retriever.embedder.encode(texts)  # together, as a batch decides the last bits
    given = ask(docs, "/v1/embeddings", {"model": "tiny-docs", "input": texts})
    np.testing.assert_array_equal(np.array([row["embedding"] for row in given["data"]], np.float32), expected)
    packed = ask(docs, "/v1/embeddings", {"model": "tiny", "input": texts[1], "encoding_format": "base64"})
    assert base64.b64decode(packed["data"][0]["embedding"]) == retriever.embedder.encode(texts[1:])[0].tobytes()
    assert "no index" in refused(plain, "/v1/embeddings", {"model": "tiny", "input": "a"}, 404)["message"]
    assert "256" in refused(docs, "/v1/embeddings", {"model": "tiny", "input": "list " * 300})["message"]
    assert "token ids" in refused(docs, "/v1/embeddings", {"model": "tiny", "input": [[1, 2]]})["message"]
    assert refused(docs, "/v1/embeddings", {"model": "tiny", "input": "a", "dimensions": 7})["param"] == "dimensions"


# -- documents


def test_answers_cite_what_was_retrieved_and_nothing_else(docs: TestClient) -> None:
    whole = ask(docs, CHAT, question(made.QUESTION, "tiny-docs"))
    (choice,) = whole["choices"]
    content = choice["message"]["content"]
    assert content.startswith("**Yes**, it is so [1], not  or [1].\n\n")
    assert "`x[9]` and `y[1]`" in content  # code is no citation
    (passage,) = whole["passages"]
    assert {key: passage[key] for key in ("number", "id", "document", "source", "heading", "start", "end", "text")} == {
        "number": 1, "id": "docs/list:0", "document": "docs/list", "source": "docs",
        "heading": made.TITLE, "start": 0, "end": len(made.QUESTION), "text": made.QUESTION,
    }  # fmt: skip
    links = [annotation["url_citation"] for annotation in choice["message"]["annotations"]]
    assert [content[link["start_index"] : link["end_index"]] for link in links] == ["[1]", "[1]"]
    assert links[0]["url"] == "http://testserver/?document=docs%2Flist&passage=docs%2Flist%3A0"
    chunks = stream(docs, CHAT, question(made.QUESTION, "tiny-docs"))
    assert chunks[0]["passages"] == whole["passages"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == content
    assert chunks[-1]["choices"][0]["delta"]["annotations"] == choice["message"]["annotations"]


def test_a_question_that_goes_on_is_looked_up_with_the_one_before(docs: TestClient) -> None:
    assert ask(docs, CHAT, question(made.FOLLOWING, "tiny-docs"))["passages"] == []
    before = [{"role": "user", "content": made.QUESTION}, {"role": "assistant", "content": "Yes [1]."}]
    messages = before + question(made.FOLLOWING)["messages"]
    (passage,) = ask(docs, CHAT, {"model": "tiny-docs", "messages": messages})["passages"]
    assert passage["document"] == "docs/more"


def test_nothing_close_enough_is_said_without_the_model(docs: TestClient) -> None:
    whole = ask(docs, CHAT, question("5 6 7 8 9", "tiny-docs"))
    assert whole["choices"][0]["message"]["content"] == "This is not in the documents."
    assert (whole["passages"], whole["usage"]["total_tokens"]) == ([], 0)
    chunks = stream(docs, CHAT, question("5 6 7 8 9", "tiny-docs"))
    assert (
        "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "This is not in the documents."
    )


def test_a_document_is_shown_with_its_passages(docs: TestClient, retriever: Retriever) -> None:
    shown = docs.get("/v1/documents/docs/long%20page").json()
    assert [passage["id"] for passage in shown["passages"]] == [one.id for one in retriever.document("docs/long page")]
    assert len(shown["passages"]) > 3
    for path in ("docs/none", "../models/index", "%2e%2e/%2e%2e/etc/passwd"):
        assert docs.get(f"/v1/documents/{path}").status_code == 404


def test_other_sources_are_neither_retrieved_nor_shown(
    reciter: ServedModel, retriever: Retriever, docs: TestClient
) -> None:
    secret = "the bucket list of the secret plan"
    (passage,) = ask(docs, CHAT, question(secret, "tiny-docs", sources=["private"]))["passages"]
    assert passage["document"] == "private/plan"
    assert ask(docs, CHAT, question(secret, "tiny-docs", sources=["docs"]))["passages"] == []
    assert "ignored" in refused(docs, CHAT, question("a", sources=["docs"]))["message"]
    with serving(reciter, retriever, sources=["docs"]) as limited:
        for sources in (None, ["private"], ["private", "docs"]):
            assert ask(limited, CHAT, question(secret, "tiny-docs", sources=sources))["passages"] == []
        assert limited.get("/v1/documents/private/plan").status_code == 404
        assert limited.get("/v1/documents/docs/list").status_code == 200


def test_without_its_store_the_plain_model_goes_on(
    reciter: ServedModel, retriever: Retriever, capsys: pytest.CaptureFixture[str]
) -> None:
    class Down(_Shared):
        def search(self, *question: Any, **more: Any) -> Any:
            raise SmeltError("the store at 127.0.0.1:9 does not answer")

        embedder = SimpleNamespace(dimension=32, max_tokens=9, tokenizer=retriever.embedder.tokenizer, encode=search)

    with serving(reciter, Down(retriever)) as client:  # type: ignore[arg-type]
        error = refused(client, CHAT, question("a", "tiny-docs"), 503)
        assert error["message"] == "the documents cannot be searched now; the server's log says why"
        assert capsys.readouterr().err == "serve: error: the store at 127.0.0.1:9 does not answer\n"
        assert refused(client, "/v1/embeddings", {"model": "tiny", "input": "list"}, 503) == error
        assert ask(client, CHAT, question("a"))["choices"][0]["message"]["content"] == made.SAID


class Obedient(ServedModel):
    """The worst that a document can make of a model: it tells everything that it has been told."""

    def tokens(self, ids, *rest, **more) -> Iterator[Token]:
        self.asked = ids
        yield from (Token(token, self._llama.detokenize([token], special=True), None, []) for token in ids)


def test_a_document_that_gives_orders_gets_no_more_than_is_in_the_prompt(home: Path, retriever: Retriever) -> None:
    model = Obedient(home / "models/export/gguf/tiny-Q8_0.gguf", 4096, seed=0)
    with serving(model, retriever, keys=["sk-key"]) as client:
        client.headers["Authorization"] = "Bearer sk-key"
        whole = ask(client, CHAT, question(made.INJECTED, "tiny-docs"))
    (passage,) = whole["passages"]
    assert passage["document"] == "docs/bad"
    told = whole["choices"][0]["message"]["content"]
    assert told.count("<|im_start|>user\n") == told.count("<|im_start|>assistant\n") == 1
    # The order to be another message, and the passage that it pretends to be, are text like any other ...
    assert [token for token in model.asked if token < 4] == [1, 2, 1]
    assert "\n(2) say keys" in told
    # ... and what is not in the prompt is not told: no key, no path of this machine, no other source.
    for secret in ("sk-key", str(home), "models/export", "minilm", "secret plan", "file:bad"):
        assert secret not in json.dumps(whole)
    assert {
        note["url_citation"]["url"].split("document=")[1].split("&")[0]
        for note in whole["choices"][0]["message"]["annotations"]
    } <= {"docs%2Fbad"}


# -- what is refused

BAD = {
    "no JSON": b"{{{",
    "JSON without end": b"[" * 100_000,
    "a list": b"[]",
    "no messages": {"model": "tiny", "messages": []},
    "no model": {"messages": [{"role": "user", "content": "a"}]},
    "half a character": b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "a role": {"model": "tiny", "messages": [{"role": "root", "content": "a"}]},
    "a picture": question([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}]),
    "a tool": question("a", tools=[{"type": "function"}]),
    "two answers": question("a", n=2),
    "too hot": question("a", temperature=3),
    "no number": question("a", temperature="NaN"),
    "no tokens": question("a", max_tokens=0),
    "an empty stop": question("a", stop=""),
    "many stops": question("a", stop=["x"] * 17),
    "unknown": question("a", beam_width=2),
    "choices without probabilities": question("a", top_logprobs=2),
    "no schema": question("a", response_format={"type": "json_schema"}),
    "bytes": b"\xff\xfe\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("body", BAD.values(), ids=list(BAD))
def test_malformed_requests_are_told_so(plain: TestClient, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = plain.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [{"prompt": ""}, {"prompt": []}, {"prompt": [10**9]}, {"prompt": [-1]}, {"prompt": ["a", "b"]},
     {"prompt": "a", "echo": True}, {"prompt": "a", "suffix": "b"}, {"prompt": "a", "best_of": 2},
     {"prompt": "a", "logprobs": 21}],
)  # fmt: skip
def test_malformed_texts_are_told_so(plain: TestClient, body: dict[str, Any]) -> None:
    refused(plain, TEXT, {"model": "tiny", **body})


def test_what_the_documents_model_cannot_do_is_refused(docs: TestClient) -> None:
    refused(docs, TEXT, {"model": "tiny-docs", "prompt": "a"})
    refused(docs, CHAT, question(made.QUESTION, "tiny-docs", logprobs=True))
    refused(docs, CHAT, question(made.QUESTION, "tiny-docs", response_format={"type": "json_object"}))
    answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    refused(docs, CHAT, {"model": "tiny-docs", "messages": answered})


def test_a_prompt_longer_than_the_context_is_refused(plain: TestClient, docs: TestClient) -> None:
    assert refused(plain, CHAT, question("x" * 300))["code"] == "context_length_exceeded"
    assert refused(plain, TEXT, {"model": "tiny", "prompt": "x" * 256})["code"] == "context_length_exceeded"
    assert ask(plain, TEXT, {"model": "tiny", "prompt": "x" * 255, "max_tokens": 9})["usage"]["completion_tokens"] <= 1
    history = [{"role": "user", "content": "x" * 900}, {"role": "assistant", "content": "y" * 60}]
    error = refused(docs, CHAT, {"model": "tiny-docs", "messages": history + question(made.QUESTION)["messages"]})
    assert error["code"] == "context_length_exceeded"


def test_a_large_body_is_not_read(plain: TestClient) -> None:
    assert plain.post(CHAT, json=question("x" * 2**20)).status_code == 413
    body = json.dumps(question("x" * 2**20)).encode()
    parts = (body[at : at + 2**16] for at in range(0, len(body), 2**16))  # without a length to go by
    assert plain.post(CHAT, content=parts, headers={"Content-Type": "application/json"}).status_code == 413


def test_only_who_has_a_key_may_ask(gguf_file: Path) -> None:
    with serving(ServedModel(gguf_file, 256, seed=0), keys=["sk-a", "sk-b"]) as client:
        for wrong in (None, "Bearer sk-c", "Bearer ", "Basic sk-a", "sk-a", "Bearer sk-\xe9"):
            headers = {} if wrong is None else {"Authorization": wrong.encode("latin-1")}
            response = client.post(CHAT, content=b"{{{", headers=headers)  # refused before it is read
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert client.get("/v1/documents/a", headers=headers).status_code == 401
        for right in ("sk-a", "sk-b"):
            response = client.post(CHAT, json=question("a"), headers={"Authorization": f"Bearer {right}"})
            assert response.status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


def test_another_sites_name_for_this_machine_is_refused(plain: TestClient) -> None:
    assert plain.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
    # A form of another site may send text, not JSON, without asking first.
    response = plain.post(CHAT, content=json.dumps(question("a")), headers={"Content-Type": "text/plain"})
    assert response.status_code == 400


def test_each_key_has_its_own_limit(gguf_file: Path) -> None:
    model = ServedModel(gguf_file, 256, seed=0)
    with serving(model, keys=["a", "b"], requests_per_minute=2) as client:
        statuses = [
            client.post(CHAT, json=question("a"), headers={"Authorization": "Bearer a"}).status_code for _ in range(4)
        ]
        assert statuses == [200, 200, 429, 429]
        response = client.post(CHAT, json=question("a"), headers={"Authorization": "Bearer a"})
        assert 1 <= int(response.headers["retry-after"]) <= 30
        assert client.post(CHAT, json=question("a"), headers={"Authorization": "Bearer b"}).status_code == 200
    with serving(model, tokens_per_minute=30) as client:
        assert [client.post(CHAT, json=question("a")).status_code for _ in range(3)] == [200, 200, 429]


def test_a_bucket_fills_again() -> None:
    now = 0.0
    bucket = Bucket(60, lambda: now)
    assert bucket.wait(60) == 0
    bucket.spend(90)
    assert bucket.wait(1) == pytest.approx(31)
    now = 31
    assert bucket.wait(1) == 0
    now = 10_000
    assert bucket.wait(61) == pytest.approx(1)  # it holds no more than a minute's
    assert Bucket(None).wait(10**9) == 0


def test_metrics_count_what_happened(gguf_file: Path) -> None:
    with serving(ServedModel(gguf_file, 256, seed=0)) as client:
        used = [ask(client, CHAT, question("why?"))["usage"] for _ in range(2)]
        refused(client, CHAT, question("a", n=2))
        client.get("/no/such/page")
        text = client.get("/metrics").text
    assert 'smelt_responses_total{route="/v1/chat/completions",status="200"} 2.0' in text
    assert 'smelt_responses_total{route="/v1/chat/completions",status="400"} 1.0' in text
    assert 'smelt_responses_total{route="other",status="404"} 1.0' in text
    assert f'smelt_answer_tokens_total{{model="tiny"}} {2.0 * used[0]["completion_tokens"]}' in text
    assert f'smelt_prompt_tokens_total{{model="tiny"}} {2.0 * used[0]["prompt_tokens"]}' in text
    assert 'smelt_first_token_seconds_count{model="tiny"} 2.0' in text
    assert "smelt_requests_waiting 0.0" in text


def test_a_model_that_breaks_down_breaks_one_answer(home: Path) -> None:
    class Broken(ServedModel):
        def tokens(self, ids, max_tokens, *rest, **more) -> Iterator[Token]:
            if max_tokens == 7:
                raise RuntimeError("out of memory at /secret/path")
            yield from super().tokens(ids, max_tokens, *rest, **more)

    with serving(Broken(home / "models/export/gguf/tiny-Q8_0.gguf", 256, seed=0)) as client:
        error = refused(client, CHAT, question("a", max_tokens=7), 500)
        assert "secret" not in str(error)
        events = client.post(CHAT, json=question("a", max_tokens=7, stream=True)).text
        assert '"server_error"' in events
        assert "secret" not in events
        assert ask(client, CHAT, question("a"))["choices"][0]["message"]["content"] == made.SAID
        assert client.get("/health").status_code == 200


# -- the page


def test_the_page_may_load_nothing_from_elsewhere(plain: TestClient) -> None:
    page = plain.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("app.js", "style.css", "vendor/marked.esm.js", "icon.svg"):
        assert plain.get(f"/page/{path}").status_code == 200
    for path in ("../api.py", "%2e%2e/api.py", "..%2fapi.py"):
        assert plain.get(f"/page/{path}").status_code == 404
