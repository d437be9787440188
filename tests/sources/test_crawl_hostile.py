"""Pages that redirect for ever, never end, unpack to gigabytes; hosts that fail or are not to be asked."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path

from lib.sources.crawler import MAX_REDIRECTS
from tests.sources.crawling import collect, packed, redirect, web
from tests.sources.site import Handler, Site, page


def slow(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"<p>drip</p>")
        time.sleep(0.1)


def slow_header(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(100):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.1)


def endless(handler: Handler) -> None:
    """200 MB, unless someone hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b"x" * 1_000_000)
    handler.site.routes["/taken-whole"] = "yes"


def test_hostile_pages_end_with_their_reason(tmp_path: Path, site: Site) -> None:
    site.routes = {
        "/good": page("Good"),
        "/loop": redirect("/loop2"),
        "/loop2": redirect("/loop", 301),
        "/self": redirect("/self"),
        "/moved": redirect("/new", 308),
        "/new": page("New"),
        "/file": redirect("file:///etc/passwd"),
        "/far/*": lambda handler: handler.give("", status=302, Location=handler.path + "x"),
        "/500": lambda handler: handler.give("", status=500),
        "/slow": slow,
        "/slow-header": slow_header,
        "/endless": endless,
        "/declared": lambda handler: handler.give(b"x" * 2_000_000),
        "/bomb": lambda handler: handler.give(packed(), Content_Encoding="gzip"),
        "/pdf": lambda handler: handler.give(b"%PDF-1.7", type="application/pdf"),
        "/binary": lambda handler: handler.give(b"\0\1\2\3" * 100),
        "/blank": "<html><body></body></html>",
        "/empty": "",
        "/cut": lambda handler: (handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
                                 setattr(handler, "close_connection", True)),
        "/noise": lambda handler: (handler.wfile.write(b"\x16\x03\x01 what\r\n\r\n"),
                                   setattr(handler, "close_connection", True)),
        "/badgzip": lambda handler: handler.give(b"no gzip at all", Content_Encoding="gzip"),
    }  # fmt: skip
    named = [path for path in site.routes if path not in ("/loop2", "/new", "/far/*")]
    texts, reasons = collect(tmp_path, web(site, *named, "/far/", timeout_seconds=1.0))
    assert set(texts) == {"/good", "/new"}
    far = {path: reason for path, reason in reasons.items() if path.startswith("/far/")}
    assert Counter(far.values()) == {"redirected": MAX_REDIRECTS + 1, "too_many_redirects": 1}
    assert {path: reason for path, reason in reasons.items() if path not in far} == {
        "/loop": "redirect_loop",
        "/loop2": "redirect_loop",
        "/self": "redirect_loop",
        "/moved": "redirected",
        "/file": "redirect_to_nowhere",
        "/500": "http_500",
        "/slow": "timed_out",
        "/slow-header": "timed_out",
        "/endless": "too_large",
        "/declared": "too_large",
        "/bomb": "too_large",
        "/pdf": "unsupported_type",
        "/binary": "not_text",
        "/blank": "no_text_in_html",
        "/empty": "empty",
        "/cut": "broken_answer",
        "/noise": "broken_answer",
        "/badgzip": "broken_answer",
    }
    assert "/endless" in site.cut
    assert "/taken-whole" not in site.routes
    assert (tmp_path / "data/web/w/crawl.warc.gz").stat().st_size < 50_000


def test_hosts_that_are_not_there(tmp_path: Path, site: Site) -> None:
    with Site() as closed:
        pass
    source = web(site, urls=[f"{closed.url}/x", "http://nowhere.invalid/", "http://xn--a.example/y"])
    assert collect(tmp_path, source) == ({}, {"/x": "unreachable", "/": "host_not_found", "/y": "bad_url"})


def test_a_page_may_not_lead_to_a_private_address_that_was_not_named(tmp_path: Path, site: Site) -> None:
    site.routes = {
        "/number": redirect(f"http://127.0.0.2:{site.port}/secret"),
        "/name": redirect(f"http://localhost:{site.port}/secret2"),
        "/secret": page("Secret"),
        "/secret2": page("Secret"),
    }
    texts, reasons = collect(tmp_path, web(site, "/number", "/name"))
    assert texts == {}
    assert reasons["/secret"] == reasons["/secret2"] == "private_address"
    assert site.paths() == ["/number", "/name"]


def test_what_fails_for_a_while_is_asked_for_again(tmp_path: Path, site: Site) -> None:
    failures = {"/500": 2, "/429": 1, "/hang": 1}

    def recovering(handler: Handler) -> None:
        failures[handler.path] -= 1
        if failures[handler.path] < 0:
            handler.give(page("Back"))
        elif handler.path == "/hang":
            time.sleep(2)
        elif handler.path == "/429":
            handler.give("", status=429, Retry_After="1")
        else:
            handler.give("", status=500)

    site.routes = dict.fromkeys(failures, recovering)
    site.routes["/never"] = lambda handler: handler.give("", status=503)
    site.routes["/later"] = lambda handler: handler.give("", status=503, Retry_After="3600")
    texts, reasons = collect(tmp_path, web(site, *site.routes, retries=2, timeout_seconds=1.0))
    assert set(texts) == set(failures)
    assert reasons == {"/never": "http_503", "/later": "http_503"}
    asked = Counter(site.paths())
    assert asked == {"/500": 3, "/429": 2, "/hang": 2, "/never": 3, "/later": 1}
    times = [at for path, _, at in site.asked if path == "/429"]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 1
