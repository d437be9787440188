"""A web server on this machine that answers as it is told, well or badly, and remembers what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROSE = (
    "The boiler of building {name} is inspected twice a year by a certified engineer, who writes a report about it. "
)


def page(name: str, *links: str) -> str:
    """An HTML page about `name` that trafilatura finds text in."""
    anchors = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    body = f"<p>{PROSE.format(name=name)}</p><p>Reports are kept for ten years in the archive on the third floor.</p>"
    return (
        f"<!doctype html><html><head><title>{name}</title></head><body><article><h1>Boilers</h1>{body}</article>"
        f"<ul>{anchors}</ul></body></html>"
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to acknowledge its headers
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, dict(self.headers), time.monotonic()))
        route = self.site.routes.get(self.path)
        if route is None:
            route = next((r for start, r in self.site.routes.items() if start.endswith("*") and
                          self.path.startswith(start[:-1])), None)  # fmt: skip
        try:
            if route is None:
                self.give(b"<html><body>Not here</body></html>", status=404)
            elif callable(route):
                route(self)
            else:
                self.give(route)
        except (BrokenPipeError, ConnectionResetError):
            self.site.cut.append(self.path)  # the client had enough
            self.close_connection = True

    def give(self, body: str | bytes, status: int = 200, type: str | None = "text/html", **headers: str) -> None:
        """Send a whole answer. A header `x_y` is sent as `x-y`."""
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if type is not None:
            self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of the server."""


class Site:
    """Routes: path -> body of an HTML page, or what to do with the handler; a path that ends in `*` is a prefix."""

    def __init__(self, routes: dict[str, str | Callable[[Handler], None]] | None = None) -> None:
        self.routes = routes or {}
        self.asked: list[tuple[str, dict[str, str], float]] = []
        self.cut: list[str] = []  # paths of answers that the client did not take whole
        handler = type("SiteHandler", (Handler,), {"site": self})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        """What was asked for, robots.txt aside, in order."""
        return [path for path, _, _ in self.asked if path != "/robots.txt"]

    def __enter__(self) -> Site:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
