"""Endpoints over HTTP: a server that answers, and one that fails in every way it can."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from lib.completion.types import Completion, Rejected
from lib.pipeline.errors import SmeltError
from tests.completion.server import Handler, Server, completion, endpoint, request

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def test_answers_come_in_the_order_of_the_requests_and_are_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMELT_REQUESTS", "3")
    three = threading.Barrier(3, timeout=10)  # no answer before three are under way
    answered = [threading.Event() for _ in range(6)]

    def backwards(handler: Handler) -> None:
        three.wait()
        number = int(handler.said)
        if number % 3 < 2:
            answered[number + 1].wait(10)
        handler.answer()
        answered[number].set()

    with Server(backwards) as server, endpoint(server, tmp_path) as model:
        answers = list(model.complete_all(request(str(number)) for number in range(6)))
    assert [answer.text for answer in answers] == [f"re: {number}" for number in range(6)]
    assert answers[0] == Completion("re: 0", "stop", 7, 3)
    assert len(server.asked) == model.asked == model.cost.requests == 6


def test_a_request_says_all_that_decides_its_answer(tmp_path: Path) -> None:
    with Server() as server:
        with endpoint(server, tmp_path) as model:
            model.complete([{"role": "user", "content": "ü"}], max_tokens=9, temperature=0.5, seed=3)
        for structured in ("json_schema", "json_object", "none"):
            with endpoint(server, tmp_path, structured=structured) as model:
                list(model.complete_all([request("x", schema=SCHEMA)]))
    plain, *forms = server.asked
    assert plain == {
        "model": "m",
        "messages": [{"role": "user", "content": "ü"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
    }
    assert [form.get("response_format") for form in forms] == [
        {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}},
        {"type": "json_object", "schema": SCHEMA},
        None,
    ]


def failing(times: int, *, status: int = 500, **headers: str):
    def script(handler: Handler) -> None:
        if handler.number < times:
            handler.give({"error": {"message": "no luck"}}, status, **headers)
        else:
            handler.answer()

    return script


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_what_fails_in_passing_is_tried_again(tmp_path: Path, status: int) -> None:
    said: list[str] = []
    with Server(failing(2, status=status)) as server, endpoint(server, tmp_path, said.append) as model:
        assert next(model.complete_all([request("x")])) == Completion("re: x", "stop", 7, 3)
    assert len(server.asked) == 3
    assert len(said) == 2
    assert f"HTTP {status}" in said[0]


def test_a_server_that_fails_and_fails_stops_it_with_what_it_said(tmp_path: Path) -> None:
    with Server(failing(9)) as server, endpoint(server, tmp_path) as model:
        with pytest.raises(SmeltError, match=r"m at http://127.*fails and fails: HTTP 500: .*no luck.*kept"):
            list(model.complete_all([request("x")]))
        assert len(server.asked) == 3


def test_retry_after_is_kept_to_by_all(tmp_path: Path) -> None:
    with Server(failing(1, status=429, Retry_After="1")) as server, endpoint(server, tmp_path) as model:
        assert [answer.text for answer in model.complete_all(map(request, "ab"))] == ["re: a", "re: b"]
    assert server.times[-1] - server.times[0] >= 1
    late = [time for time in server.times if time - server.times[0] >= 1]
    assert len(late) >= 1


def test_an_endpoint_that_wants_too_long_a_wait_stops_it(tmp_path: Path) -> None:
    limits = failing(9, status=429, Retry_After="3600")
    with Server(limits) as server, endpoint(server, tmp_path) as model:
        with pytest.raises(SmeltError, match=r"asks for a wait of 3600 s .*max_wait_seconds"):
            list(model.complete_all([request("x")]))
        assert len(server.asked) == 1


def test_no_quota_stops_it_after_the_retries(tmp_path: Path) -> None:
    with (
        Server(failing(9, status=429)) as server,
        endpoint(server, tmp_path) as model,
        pytest.raises(SmeltError, match="rate or the quota"),
    ):
        list(model.complete_all([request("x")]))


def test_a_wrong_key_stops_it_and_is_told_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    said: list[str] = []

    def refuse(handler: Handler) -> None:
        if handler.number:
            handler.give({"error": f"{handler.headers['Authorization']} is no good"}, 401)
        else:
            handler.answer()

    with Server(refuse) as server, endpoint(server, tmp_path, said.append, key="TEACHER_KEY") as model:
        assert next(model.complete_all([request("a")])).text == "re: a"
        with pytest.raises(SmeltError, match=r"refuses the key in TEACHER_KEY: HTTP 401: .*Bearer \[key\]") as error:
            list(model.complete_all([request("b")]))
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer sk-very-secret"] * 2
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1  # the answer to a
    assert not any("secret" in text for text in [*written, *said, str(error.value)])


def test_without_its_key_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(SmeltError, match="the environment variable TEACHER_KEY holds none"):
        endpoint("http://127.0.0.1:9/v1", tmp_path, key="TEACHER_KEY")


def test_an_endpoint_that_wants_a_key_says_how_to_give_one(tmp_path: Path) -> None:
    with (
        Server(failing(9, status=401)) as server,
        endpoint(server, tmp_path) as model,
        pytest.raises(SmeltError, match=r"refuses no key \(`key` is null in params.yaml\)"),
    ):
        list(model.complete_all([request("x")]))


def test_a_redirect_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    with Server() as elsewhere, Server() as server:
        server.script = lambda handler: handler.give({}, 307, Location=elsewhere.url + "/chat/completions")
        with (
            endpoint(server, tmp_path, key="TEACHER_KEY") as model,
            pytest.raises(SmeltError, match="no such model or address: HTTP 307"),
        ):
            list(model.complete_all([request("x")]))
        assert not elsewhere.asked


def test_a_wrong_address_stops_it(tmp_path: Path) -> None:
    with (
        Server() as server,
        endpoint(server.url + "/x", tmp_path) as model,
        pytest.raises(SmeltError, match=r"no such model or address: HTTP 404.*ends before /chat/completions"),
    ):
        list(model.complete_all([request("x")]))


def test_a_server_that_is_not_there_stops_it(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there, and nobody else comes to
        taken.bind(("127.0.0.1", 0))
        with (
            endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", tmp_path) as model,
            pytest.raises(SmeltError, match=r"cannot be reached: .*Is the server running"),
        ):
            list(model.complete_all([request("x")]))


def stall(handler: Handler) -> None:
    handler.owner.over.wait(30)


def trickle(handler: Handler) -> None:
    """Never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.owner.over.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.mark.parametrize("slow", [stall, trickle])
def test_one_that_never_ends_is_given_up_and_the_others_go_on(tmp_path: Path, slow) -> None:
    def script(handler: Handler) -> None:
        slow(handler) if handler.said == "b" else handler.answer()

    with Server(script) as server, endpoint(server, tmp_path, timeout_seconds=0.3, retries=1) as model:
        answers = list(model.complete_all(map(request, "abc")))
    assert (answers[0].text, answers[2].text) == ("re: a", "re: c")
    assert answers[1] == Rejected("timed_out", "no answer in 0.3 s")
    assert [body["messages"][0]["content"] for body in server.asked].count("b") == 2


WHOLE = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "body",
    [b"", WHOLE[:-9], b"<html>busy</html>", b"\xff\xfe", b"[]", b'{"choices": []}', b"[" * 100_000, b" " * (5 * 2**20)],
    ids=["nothing", "truncated", "html", "no_text", "list", "no_choice", "deep", "huge"],
)
def test_rubbish_is_asked_for_again_and_then_rejected(tmp_path: Path, body: bytes) -> None:
    def script(handler: Handler) -> None:
        handler.give(body) if handler.said == "b" else handler.answer()

    with Server(script) as server, endpoint(server, tmp_path) as model:
        first, second, third = model.complete_all(map(request, "abc"))
    assert (first.text, third.text) == ("re: a", "re: c")
    assert second.reason == "rubbish"
    assert [asked["messages"][0]["content"] for asked in server.asked].count("b") == 3


@pytest.mark.parametrize("content", [None, 7, ["x"]])
def test_an_answer_that_is_no_text_is_rubbish(tmp_path: Path, content: object) -> None:
    with Server(lambda handler: handler.give(completion(content))) as server, endpoint(server, tmp_path) as model:
        assert next(model.complete_all([request("x")])).reason == "rubbish"


def test_a_connection_that_breaks_is_tried_again(tmp_path: Path) -> None:
    def script(handler: Handler) -> None:
        handler.hang_up() if handler.number == 0 else handler.answer()

    with Server(script) as server, endpoint(server, tmp_path) as model:
        assert next(model.complete_all([request("x")])).text == "re: x"
    assert len(server.asked) == 2


def test_a_request_that_is_refused_is_rejected_with_what_the_server_said(tmp_path: Path) -> None:
    def script(handler: Handler) -> None:
        handler.give({"error": "too long a prompt"}, 400) if handler.said == "b" else handler.answer()

    with Server(script) as server, endpoint(server, tmp_path) as model:
        first, second, third = model.complete_all(map(request, "abc"))
    assert (first.text, third.text) == ("re: a", "re: c")
    assert second == Rejected("bad_request", 'HTTP 400: {"error": "too long a prompt"}')
    assert len(server.asked) == 3


@pytest.mark.parametrize("script", [failing(99, status=422), lambda handler: handler.give(b"?")])
def test_one_that_answers_nobody_stops_it(tmp_path: Path, script) -> None:
    """Five in a row: thousands of rejects would say no more."""
    with (
        Server(script) as server,
        endpoint(server, tmp_path, retries=0) as model,
        pytest.raises(SmeltError, match="no usable answer 5 times in a row"),
    ):
        list(model.complete_all(request(str(number)) for number in range(50)))


@pytest.mark.parametrize("usage", [{"prompt_tokens": -5}, {"prompt_tokens": 10**9, "completion_tokens": "3"}, {"x": 1}])
def test_tokens_that_cannot_be_count_as_the_most(tmp_path: Path, usage: dict) -> None:
    with Server(lambda handler: handler.answer("y", **usage)) as server, endpoint(server, tmp_path) as model:
        answer = next(model.complete_all([request("four", max_tokens=5)]))
    assert answer.tokens_out == 5
    assert 4 <= answer.tokens_in < 100
