"""The server in a process of its own: many clients, clients that leave, and its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.running import ROOT, Running
from tests.serve.tiny import TOKENS, write_reciter

pytestmark = pytest.mark.xdist_group("serve")
COUNT = 30  # the model counts so far, and begins again
CHAT = "/v1/chat/completions"
LONG = {"model": "endless", "messages": [{"role": "user", "content": "?"}], "max_tokens": 100_000}


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that goes on for as long as it may: seconds."""
    folder = tmp_path_factory.mktemp("talker")
    write_reciter(folder / "endless-F16.gguf", [f"{n} " for n in range(COUNT)], context=32_768, forever=True)
    return folder


def run(folder: Path, *arguments: str, keys: str = "") -> Running:
    model = str(folder / "endless-F16.gguf")
    return Running(folder, "--model", model, "--context", "32768", "--max-tokens", "30000", *arguments, keys=keys)


@pytest.fixture(scope="module")
def endless(talker: Path) -> Iterator[Running]:
    with run(talker, "--queue", "2") as running:
        yield running


def waiting(running: Running) -> float | None:
    return running.metric("smelt_requests_waiting")


def test_without_an_index_the_plain_model_is_served(endless: Running) -> None:
    assert "no index in models/index, so only the plain model is served" in endless.said
    assert [model["id"] for model in httpx.get(f"{endless.url}/v1/models").json()["data"]] == ["endless"]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_is_not_answered_on(endless: Running, streamed: bool) -> None:
    before = endless.metric("smelt_clients_left_total")
    with httpx.Client(timeout=60) as client:
        if streamed:
            with client.stream("POST", endless.url + CHAT, json=LONG | {"stream": True}) as response:
                lines = response.iter_lines()  # the response is closed with its iterator
                next(lines)
                assert waiting(endless) == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(endless.url + CHAT, json=LONG, timeout=httpx.Timeout(60, read=0.2))
    endless.wait_until(lambda: waiting(endless) == 0, seconds=5)
    assert endless.metric("smelt_clients_left_total") == before + 1
    # The model is free again: it would have been busy for seconds.
    answer = httpx.post(endless.url + CHAT, json=LONG | {"max_tokens": 3}, timeout=3).json()
    assert answer["choices"][0]["message"]["content"] == "0 1 2 "


def test_who_finds_the_queue_full_is_told_at_once(endless: Running) -> None:
    refused = endless.metric("smelt_queue_full_total")
    leave = threading.Event()

    def occupy(_: int) -> str:
        with httpx.stream("POST", endless.url + CHAT, json=LONG | {"stream": True}, timeout=60) as response:
            lines = response.iter_lines()
            first = next(lines)  # the role, at once: text comes when it is this one's turn
            leave.wait(60)
            return first

    with ThreadPoolExecutor(3) as pool:
        occupied = pool.map(occupy, range(3))
        endless.wait_until(lambda: waiting(endless) == 3)
        response = httpx.post(endless.url + CHAT, json=LONG, timeout=5)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert httpx.get(f"{endless.url}/health", timeout=5).status_code == 200
        leave.set()
        assert all("assistant" in first for first in occupied)
    endless.wait_until(lambda: waiting(endless) == 0)
    assert endless.metric("smelt_queue_full_total") == refused + 1
    assert httpx.post(endless.url + CHAT, json=LONG | {"max_tokens": 1}, timeout=5).status_code == 200


def test_answers_of_many_clients_are_not_mixed(endless: Running) -> None:
    """Each asks the model to go on from another number, and for another length."""

    def text(first: int) -> str:
        body = {"model": "endless", "prompt": [len(TOKENS) + first], "max_tokens": 5 + first, "stream": first % 2 == 0}
        while (response := httpx.post(f"{endless.url}/v1/completions", json=body, timeout=60)).status_code == 429:
            time.sleep(0.05)
        if not body["stream"]:
            return response.json()["choices"][0]["text"]
        events = (line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {"))
        return "".join(json.loads(event)["choices"][0]["text"] for event in events)

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(text, range(COUNT)))
    assert texts == ["".join(f"{(first + n) % COUNT} " for n in range(1, 6 + first)) for first in range(COUNT)]


def test_a_running_answer_is_finished_before_the_end(talker: Path) -> None:
    with run(talker) as running:
        body = LONG | {"max_tokens": 2000, "stream": True}
        with httpx.stream("POST", running.url + CHAT, json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            running.wait_until(lambda: refuses(running))
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert running.process.wait(20) == 0
        assert "Traceback" not in running.process.stdout.read()  # type: ignore[union-attr]


def refuses(running: Running) -> bool:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


def test_an_answer_without_end_does_not_hold_up_the_end(talker: Path) -> None:
    with run(talker, "--drain-seconds", "1") as running:
        with httpx.stream("POST", running.url + CHAT, json=LONG | {"stream": True}, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            *_, last = (line for line in lines if line)
        assert json.loads(last[6:])["error"]["message"] == "the server ends"
        assert running.process.wait(5) == 0
        assert "Traceback" not in running.process.stdout.read()  # type: ignore[union-attr]


def start(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lib.serve.server", *arguments], cwd=folder, text=True, capture_output=True, timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **environment}, check=False,
    )  # fmt: skip


def test_what_cannot_be_served_is_said_in_one_line(endless: Running, talker: Path, tmp_path: Path) -> None:
    port = endless.url.rpartition(":")[2]
    model = talker / "endless-F16.gguf"
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:5000])
    (tmp_path / "models/index").mkdir(parents=True)
    for arguments, said in {
        ("--port", port, "--model", str(model)): f"cannot listen on .*:{port}: Address already in use",
        ("--port", "0"): "there is no model in models/export/gguf: run `make repro`",
        ("--port", "0", "--model", "none.gguf"): "there is no model none.gguf",
        ("--port", "0", "--model", "cut.gguf"): "cannot load cut.gguf",
        ("--port", "0", "--model", str(model)): "there is no index in models/index",
        ("--port", "0", "--host", "0.0.0.0"): "lets other machines in: set SMELT_API_KEYS",
    }.items():  # fmt: skip
        done = start(*arguments, folder=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert re.match(f"serve: error: .*{said}", line), line


def test_keys_stay_out_of_what_the_process_shows(talker: Path) -> None:
    with run(talker, keys="sk-one, sk-two") as running:
        assert httpx.get(f"{running.url}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer sk-two"}
        assert httpx.get(f"{running.url}/v1/models", headers=headers).status_code == 200
        assert "sk-" not in Path(f"/proc/{running.process.pid}/cmdline").read_text()
        assert running.end() == 0
        assert "sk-" not in running.said
