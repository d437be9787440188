"""A stand-in for a Hugging Face hub: a real HTTP server on this machine with the endpoints that the hub source calls.

    GET /api/datasets/<repo>[/revision/<commit>]           what a commit holds
    GET /datasets/<repo>/resolve/<commit>/<path>           a file; a large one leads to /storage on another host name
    GET /api/models/<repo>..., /<repo>/resolve/...         the same of a model

with ranges, ETags, X-Repo-Commit, X-Error-Code, tokens, and failures on demand. And, for a token that may write:

    POST /api/repos/create                                 a repository, private or public
    POST /api/models/<repo>/preupload/main                 which files go to the storage, and which into the commit
    POST /<repo>.git/info/lfs/objects/batch                what the storage lacks of it; PUT /storage/<sha256> brings it
    POST /api/models/<repo>/commit/main                    the commit, as JSON lines
"""

from __future__ import annotations

import base64
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
    writers: dict[str, str] = field(default_factory=dict)  # token -> the owner whose repositories it may write to
    private: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)  # uploaded to the storage, by sha256
    messages: list[str] = field(default_factory=list)  # of the commits made by uploads
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

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            server.requests.append(Request(path, None, token))
            if server.failures:
                self.answer(server.failures.pop(0), {})
            elif path == "/api/validate-yaml":
                self.say({"errors": [], "warnings": []})
            elif token not in server.writers:
                self.refuse(401, "Unauthorized")
            elif path == "/api/repos/create":
                self.create(json.loads(body), server.writers[token])
            elif match := re.fullmatch(
                r"(?:/api/models)?/([^/]+/[^/]+?)(\.git/.+/batch|/preupload/main|/commit/main)", path
            ):
                repo, what = match[1], match[2].rpartition("/")[2] if "git" in match[2] else match[2].split("/")[1]
                if repo not in server.commits or repo.split("/")[0] != server.writers[token]:
                    self.refuse(403, "Forbidden")
                else:
                    {"preupload": self.preupload, "batch": self.batch, "commit": self.commit}[what](repo, body)
            else:
                self.refuse(404, "NotFound")

        def say(self, value: Any, status: int = 200) -> None:
            self.answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def create(self, asked: dict[str, Any], owner: str) -> None:
            repo = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] != owner:
                self.refuse(403, "Forbidden")
            elif repo in server.commits:
                self.say({"error": "exists already", "url": f"{server.url}/{repo}"}, 409)
            else:
                server.add(repo, {})
                if asked.get("visibility") == "private":
                    server.private.add(repo)
                self.say({"url": f"{server.url}/{repo}", "id": repo})

        def preupload(self, repo: str, body: bytes) -> None:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in files
            ]
            self.say({"files": modes})

        def batch(self, repo: str, body: bytes) -> None:
            objects = [
                one if one["oid"] in server.stored
                else one | {"actions": {"upload": {"href": f"{server.url}/storage/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            self.say({"transfer": "basic", "objects": objects})

        def do_PUT(self) -> None:
            digest, content = self.path.rpartition("/")[2], self.rfile.read(int(self.headers["Content-Length"]))
            server.requests.append(Request(self.path, None, None, len(content)))
            assert self.headers.get("Authorization") is None, "the token must not leave the hub"
            assert server._digest(content) == digest
            server.stored[digest] = content
            self.answer(200, {})

        def commit(self, repo: str, body: bytes) -> None:
            files = dict(server.commits[repo][server.heads[repo]])
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    server.messages.append(value["summary"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = server.stored[value["oid"]]
                else:
                    files[value["path"]] = base64.b64decode(value["content"])
            commit = server.add(repo, files)
            self.say({"commitUrl": f"{server.url}/{repo}/commit/{commit}", "commitOid": commit})

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
                    "private": repo in server.private,
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
