"""A server on this machine that speaks the OpenAI API, well or badly as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from lib.completion.endpoint import Endpoint, connect
from lib.completion.types import Request
from lib.params.completion import ChatEndpoint
from tests.sources.site import QuietServer

Script = Callable[["Handler"], None]


def completion(text: Any, finish: str = "stop", **usage: Any) -> dict[str, Any]:
    usage = usage or {"prompt_tokens": 7, "completion_tokens": 3}
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to acknowledge its headers
    owner: Server
    body: dict[str, Any]
    number: int  # of the request, from 0

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.owner.lock:
            self.number = len(self.owner.asked)
            self.owner.asked.append(self.body)
            self.owner.headers.append(dict(self.headers))
            self.owner.times.append(time.monotonic())
        try:
            if self.path != "/v1/chat/completions":
                self.give({"detail": "Not Found"}, 404)
            else:
                self.owner.script(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    @property
    def said(self) -> str:
        return self.body["messages"][-1]["content"]

    def answer(self, text: Any = None, **more: Any) -> None:
        self.give(completion(f"re: {self.said}" if text is None else text, **more))

    def give(self, content: Any, status: int = 200, **headers: str) -> None:
        """Send JSON, or bytes as they are. A header `x_y` is sent as `x-y`."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, *arguments: Any) -> None:
        pass


class Server:
    """Attributes:
    script: what is done with a request.
    asked, headers, times: of each request, in the order in which they came.
    over: set when the server closes, for scripts that wait.
    """

    def __init__(self, script: Script = Handler.answer) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock, self.over = threading.Lock(), threading.Event()
        self._server = QuietServer(("127.0.0.1", 0), type("Own", (Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


def params(url: str, **changes: Any) -> ChatEndpoint:
    """Of an endpoint at `url` that is patient for half a second; `changes` are of any of its sections."""
    values: dict[str, Any] = {
        "kind": "openai",
        "gguf": {"path": "data/assets/smollm2", "context": 512},
        "openai": {
            "url": url,
            "model": "m",
            "key": None,
            "structured": "json_schema",
            "timeout_seconds": 5,
            "retries": 2,
            "retry_seconds": 0.01,
            "max_wait_seconds": 2,
        },
        "attempts": 2,
        "budget": {"requests": None, "tokens": None, "money": None, "price_in": 0, "price_out": 0},
    }
    for name, change in changes.items():
        section = next((values[s] for s in ("openai", "gguf", "budget") if name in values[s]), values)
        section[name] = change
    return ChatEndpoint.model_validate(values)


def endpoint(
    server: Server | str, root: Path, log: Callable[[str], None] = lambda line: None, **changes: Any
) -> Endpoint:
    return connect(params(server if isinstance(server, str) else server.url, **changes), root, log)


def request(text: str, max_tokens: int = 5, **more: Any) -> Request:
    return Request([{"role": "user", "content": text}], max_tokens, **{"temperature": 0.0, "seed": 1, **more})
