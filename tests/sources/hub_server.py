"""A stand-in for a Hugging Face hub: a real HTTP server on this machine with the endpoints that the hub source calls.

    GET /api/datasets/<repo>[/revision/<commit>]           what a commit holds
    GET /datasets/<repo>/resolve/<commit>/<path>           a file; a large one leads to /storage on another host name
    GET /api/models/<repo>..., /<repo>/resolve/...         the same of a model

with ranges, ETags, X-Repo-Commit, X-Error-Code, tokens, and failures on demand.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 10_000  # bytes; from here on a file lies in the storage


@dataclass
class Request:
    path: str
    range: str | None
    token: str | None
    sent: int = 0  # bytes of a file


@dataclass
class HubServer:
    """Start with `with HubServer() as server`; `server.url` is the endpoint."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # repo -> commit -> path -> content
    heads: dict[str, str] = field(default_factory=dict)
    gated: dict[str, str] = field(default_factory=dict)  # repo -> the token that opens it
    answers: dict[str, str] = field(default_factory=dict)  # commit asked for -> commit answered with
    failures: list[Any] = field(default_factory=list)  # for the next requests: a status, or "drop" after half
    retry_after: str | None = None
    seconds_per_chunk: float = 0.0  # of 64 KiB
    ranges: bool = True
    requests: list[Request] = field(default_factory=list)

    def add(self, repo: str, files: dict[str, bytes], commit: str | None = None) -> str:
        """A new commit of `repo`, its head."""
        names = [name.encode() + hashlib.sha256(content).digest() for name, content in sorted(files.items())]
        commit = commit or hashlib.sha1(b"".join(names)).hexdigest()
        self.commits.setdefault(repo, {})[commit] = files
        self.heads[repo] = commit
        return commit

    def sent(self, path: str) -> int:
        """Bytes sent of files whose URL ends with `path`, from the storage or not."""
        storage = {
            self._digest(files[path])
            for commits in self.commits.values()
            for files in commits.values()
            if path in files
        }
        return sum(
            one.sent for one in self.requests if one.path.endswith(path) or one.path.rpartition("/")[2] in storage
        )

    @staticmethod
    def _digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    def __enter__(self) -> HubServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # a client that hangs up; what fails here fails the test there
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.storage = f"http://localhost:{self._http.server_port}/storage"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            self.answer(status, {"X-Error-Code": code, "X-Error-Message": code})

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            self.request_seen = Request(path, self.headers.get("Range"), token)
            server.requests.append(self.request_seen)
            failure = server.failures.pop(0) if server.failures else None
            if isinstance(failure, int):
                headers = {"Retry-After": server.retry_after} if server.retry_after else {}
                self.answer(failure, headers)
            elif match := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self.describe(match[1], match[2])
            elif match := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve(match[1], match[2], match[3], token, failure)
            elif match := re.fullmatch(r"/storage/(\w+)", path):
                assert token is None, "the token must not leave the hub"
                contents = [
                    content
                    for commits in server.commits.values()
                    for files in commits.values()
                    for content in files.values()
                ]
                content = next(content for content in contents if server._digest(content) == match[1])
                self.content(content, {"ETag": f'"storage-{match[1][:8]}"'}, failure)
            else:
                self.refuse(404, "NotFound")

        def describe(self, repo: str, commit: str | None) -> None:
            commit = commit or server.heads.get(repo)
            if repo not in server.commits:
                self.refuse(401, "RepoNotFound")
            elif commit not in server.commits[repo]:
                self.refuse(404, "RevisionNotFound")
            else:
                files = server.commits[repo][commit]
                about = {
                    "id": repo,
                    "sha": server.answers.get(commit, commit),
                    "siblings": [{"rfilename": name} for name in files],
                }
                self.answer(200, {"Content-Type": "application/json"}, json.dumps(about).encode())

        def resolve(self, repo: str, commit: str, path: str, token: str | None, failure: Any) -> None:
            if repo in server.gated and token != server.gated[repo]:
                self.refuse(403 if token else 401, "GatedRepo")
                return
            files = server.commits.get(repo, {}).get(commit)
            if files is None or path not in files:
                self.refuse(404, "EntryNotFound" if files else "RevisionNotFound")
                return
            content, headers = files[path], {"X-Repo-Commit": server.answers.get(commit, commit)}
            if len(content) >= LARGE:
                digest = server._digest(content)
                if failure:
                    server.failures.insert(0, failure)
                self.answer(302, headers | {"Location": f"{server.storage}/{digest}", "X-Linked-ETag": f'"{digest}"'})
                return
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.content(content, headers | {"ETag": f'"{blob}"'}, failure)

        def content(self, content: bytes, headers: dict[str, str], failure: Any) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start, end, status = 0, len(content), 200
            if span and server.ranges:
                start, end, status = int(span[1]), min(int(span[2] or len(content) - 1) + 1, len(content)), 206
                if start >= len(content):
                    self.answer(416, {})
                    return
                headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(end - start)}.items():
                self.send_header(name, value)
            self.end_headers()
            if failure == "drop":
                end = start + (end - start) // 2
                self.close_connection = True
            for place in range(start, end, 2**16):
                chunk = content[place : min(place + 2**16, end)]
                try:
                    self.wfile.write(chunk)
                except OSError:  # the client hung up: it has enough
                    self.close_connection = True
                    return
                self.request_seen.sent += len(chunk)
                time.sleep(server.seconds_per_chunk)

    return Handler
