"""Crawling a real server on this machine, through the stage `collect`."""

from __future__ import annotations

import functools
import gzip
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources import warc
from lib.sources.crawler import MAX_REDIRECTS
from lib.text.documents import read_documents, read_table
from tests.sources.site import Handler, Site, page
from tests.text import project


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


def web(site: Site, *paths: str, **changes: Any) -> dict[str, Any]:
    """A source over these paths of the site, in a hurry."""
    source = project.folder("web", kind="web", input="data/web/w")
    del source["keep"], source["text"], source["limits"]
    return {
        **source,
        "urls": [site.url + path for path in paths],
        "sitemaps": [],
        "follow": 0,
        "max_pages": 100,
        "max_page_mib": 1,
        "delay_seconds": 0.0,
        "max_delay_seconds": 2.0,
        "timeout_seconds": 5.0,
        "retries": 0,
        "retry_seconds": 0.01,
        "extract_seconds": 20.0,
        "user_agent": "Smelt/0.1",
        **changes,
    }


def collect(root: Path, source: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and reasons by the path of their URL, after checking that each URL ends once."""
    project.make(root, {"w": source})
    (root / source["input"]).mkdir(parents=True, exist_ok=True)
    metrics = project.run(root, "collect", "w")
    out = root / "data/raw/w"
    documents = list(read_documents(out / "documents"))
    rejects = [row for batch in read_table(out / "rejects") for row in batch.to_pylist()]
    uris = Counter([document.uri for document in documents] + [row["uri"] for row in rejects])
    assert set(uris.values()) <= {1}
    assert metrics["documents"] == len(documents)
    assert metrics["rejected"] == len(rejects) == sum(metrics["reasons"].values())

    def path(uri: str) -> str:
        return "/" + uri.split("/", 3)[3] if uri.startswith("http") else uri

    return {path(document.uri): document.text for document in documents}, {
        path(row["uri"]): row["reason"] for row in rejects
    }


def test_pages_become_documents_with_their_provenance(tmp_path: Path, site: Site) -> None:
    site.routes = {"/a": page("Aries"), "/b.txt": lambda handler: handler.give("Plain words.", type="text/plain")}
    texts, reasons = collect(tmp_path, web(site, "/a", "/b.txt", "/gone"))
    assert "building Aries" in texts["/a"]
    assert texts["/b.txt"] == "Plain words."
    assert reasons == {"/gone": "http_404"}
    document = next(iter(read_documents(tmp_path / "data/raw/w/documents")))
    assert document.id == f"w/{site.url}/a"
    assert (document.uri, document.source, document.licence) == (f"{site.url}/a", "w", "CC0-1.0")
    assert {headers["User-Agent"] for _, headers, _ in site.asked} == {"Smelt/0.1"}


def test_a_second_run_needs_no_network(tmp_path: Path) -> None:
    with Site({"/a": page("Aries"), "/b": page("Bull")}) as site:
        source = web(site, "/a", "/b", "/gone")
        first = collect(tmp_path, source)
        kept = (tmp_path / "data/web/w/crawl.warc.gz").read_bytes()
        shards = (tmp_path / "data/raw/w/documents/00000.parquet").read_bytes()
    assert collect(tmp_path, source) == first  # the server is gone
    assert (tmp_path / "data/web/w/crawl.warc.gz").read_bytes() == kept
    assert (tmp_path / "data/raw/w/documents/00000.parquet").read_bytes() == shards
    assert len(collect(tmp_path, {**source, "limit": 1})[0]) == 1
    assert [path.name for path in (tmp_path / "data/web/w").iterdir()] == ["crawl.warc.gz"]


def test_a_new_url_is_fetched_and_the_others_are_not_asked_for_again(tmp_path: Path, site: Site) -> None:
    site.routes = {"/a": page("Aries"), "/b": page("Bull"), "/c": page("Crab")}
    collect(tmp_path, web(site, "/a", "/b"))
    site.asked.clear()
    texts, _ = collect(tmp_path, web(site, "/b", "/c"))
    assert set(texts) == {"/b", "/c"}
    assert site.paths() == ["/c"]


# ----------------------------------------------------------------------------------------------------------------------
# Hostile pages


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


@functools.cache
def packed() -> bytes:
    """200 MB in 900 kB."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(200)) + packer.flush()


def redirect(target: str, status: int = 302) -> Any:
    return lambda handler: handler.give("", status=status, Location=target)


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


# ----------------------------------------------------------------------------------------------------------------------
# Politeness


def robots(text: str) -> Any:
    return lambda handler: handler.give(text, type="text/plain")


def test_robots_txt_is_kept_to(tmp_path: Path, site: Site) -> None:
    site.routes = {
        "/robots.txt": robots(
            "User-agent: *\nDisallow: /\n\nUser-agent: Smelt\nDisallow: /private\nDisallow: /*.cgi$\n"
        ),
        "/a": page("Aries"),
        "/private/x": page("Private"),
        "/go": redirect("/private/y"),
        "/private/y": page("Private"),
        "/run.cgi": page("Run"),
    }
    texts, reasons = collect(tmp_path, web(site, "/a", "/private/x", "/go", "/run.cgi"))
    assert set(texts) == {"/a"}
    assert reasons == {"/private/x": "robots", "/go": "redirected", "/private/y": "robots", "/run.cgi": "robots"}
    assert set(site.paths()) == {"/a", "/go"}


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (lambda handler: handler.give("", status=404), True),
        (lambda handler: handler.give("", status=403), True),
        (lambda handler: handler.give("", status=503), False),
        (lambda handler: handler.give("", status=302, Location="/rules"), False),
        (lambda handler: handler.give("", status=302, Location="/robots.txt"), True),
    ],
)
def test_a_robots_txt_that_cannot_be_had(tmp_path: Path, site: Site, answer: Any, allowed: bool) -> None:
    """RFC 9309, 2.3.1: no such file allows everything, a server in trouble nothing; redirects are followed."""
    site.routes = {"/robots.txt": answer, "/rules": robots("User-agent: *\nDisallow: /"), "/a": page("Aries")}
    texts, reasons = collect(tmp_path, web(site, "/a"))
    assert bool(texts) == allowed
    assert bool(reasons) != allowed


def test_requests_to_a_host_keep_their_distance_and_hosts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Site() as one, Site() as two:
        for site in (one, two):
            site.routes = {f"/{number}": page(str(number)) for number in range(4)}
        two.routes["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.3\n")
        urls = [f"{site.url}/{number}" for site in (one, two) for number in range(4)]
        collect(tmp_path, web(one, urls=urls, delay_seconds=0.1))
    for site, delay in ((one, 0.1), (two, 0.3)):
        times = [at for path, _, at in site.asked if path != "/robots.txt"]
        assert min(after - before for before, after in itertools.pairwise(times)) >= delay * 0.95
    assert two.asked[0][2] < one.asked[-1][2]


def test_a_host_that_wants_to_be_left_alone(tmp_path: Path, site: Site) -> None:
    site.routes = {"/robots.txt": robots("User-agent: *\nCrawl-delay: 3600\n"), "/a": page("Aries")}
    assert collect(tmp_path, web(site, "/a")) == ({}, {"/a": "crawl_delay_too_long"})


# ----------------------------------------------------------------------------------------------------------------------
# Sitemaps and links


def sitemap(site: Site, *paths: str, index: bool = False) -> str:
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    rows = "".join(f"<{inner}><loc>{site.url}{path}</loc></{inner}>" for path in paths)
    return f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</{outer}>'


def test_sitemaps_and_their_index(tmp_path: Path, site: Site) -> None:
    zipped = gzip.compress(sitemap(site, "/c", "/a").encode())
    site.routes = {
        "/index.xml": sitemap(site, "/one.xml", "/two.xml.gz", "/text.txt", "/none.xml", "/page.xml", index=True),
        "/one.xml": sitemap(site, "/a", "/b"),
        "/two.xml.gz": lambda handler: handler.give(zipped, type="application/gzip"),
        "/text.txt": lambda handler: handler.give(f"{site.url}/d\n", type="text/plain"),
        "/page.xml": page("No sitemap"),
        **{f"/{name}": page(name) for name in "abcd"},
    }
    texts, reasons = collect(tmp_path, web(site, sitemaps=[f"{site.url}/index.xml"]))
    assert set(texts) == {"/a", "/b", "/c", "/d"}
    assert reasons == {"/none.xml": "http_404", "/page.xml": "not_a_sitemap"}


def test_sitemap_bombs_are_bounded(tmp_path: Path, site: Site) -> None:
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    laughs = f'<!DOCTYPE x [<!ENTITY a "http://127.0.0.1/">{entities}]><urlset><url><loc>&i;</loc></url></urlset>'
    site.routes = {
        "/laughs.xml": laughs,
        "/bomb.xml.gz": lambda handler: handler.give(packed(), type="application/gzip"),
        "/many.xml": sitemap(site, *(f"/page/{number}" for number in range(5000))),
        "/self.xml": sitemap(site, "/self.xml", index=True),
        "/deep/*": lambda handler: handler.give(sitemap(site, handler.path + "1", handler.path + "2", index=True)),
        "/page/*": lambda handler: handler.give(page(handler.path)),
    }
    named = ["/laughs.xml", "/bomb.xml.gz", "/self.xml", "/deep/", "/many.xml"]
    source = web(site, sitemaps=[site.url + path for path in named], max_pages=60)
    texts, reasons = collect(tmp_path, source)
    assert reasons == {"/bomb.xml.gz": "too_large"}
    assert len(site.paths()) == 60
    assert 0 < len(texts) < 60


def test_links_are_followed_as_deep_as_told_on_the_same_host(tmp_path: Path, site: Site) -> None:
    site.routes = {
        "/": page("Home", "/a", "http://elsewhere.invalid/", "mailto:x@example.org", "#top", "/a#part"),
        "/a": page("Aries", "b", "/"),
        "/b": page("Bull", "/c"),
        "/c": page("Crab"),
    }
    assert set(collect(tmp_path / "0", web(site, "/"))[0]) == {"/"}
    assert set(collect(tmp_path / "2", web(site, "/", follow=2))[0]) == {"/", "/a", "/b"}


def test_a_link_farm_ends_at_max_pages(tmp_path: Path, site: Site) -> None:
    site.routes = {"/farm*": lambda handler: handler.give(page("Farm", *(f"{handler.path}/{n}" for n in range(9))))}
    texts, reasons = collect(tmp_path, web(site, "/farm", follow=20, max_pages=25))
    assert (len(texts), reasons) == (25, {})
    assert len(site.paths()) == 25


# ----------------------------------------------------------------------------------------------------------------------
# Interrupted, and refreshed


def start(root: Path, source: dict[str, Any], module: str, name: str) -> subprocess.Popen:
    project.make(root, {"w": source})
    (root / source["input"]).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(project.REPOSITORY)}
    environment.pop("DVC_ROOT", None)
    return subprocess.Popen(
        [sys.executable, "-m", module, name], cwd=root, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # A shell ignores Ctrl-C in what it runs in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "how"),
    [
        ("lib.sources.crawl", signal.SIGKILL),
        ("lib.sources.crawl", signal.SIGTERM),
        ("stages.collect", signal.SIGINT),
    ],
)
def test_an_interrupted_crawl_continues_where_it_was(
    tmp_path: Path, site: Site, module: str, how: signal.Signals
) -> None:
    site.routes = {f"/{number}": page(str(number)) for number in range(12)}
    source = web(site, *site.routes, delay_seconds=0.05)
    process = start(tmp_path, source, module, "w")
    while len(site.paths()) < 5:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(how)
    output, _ = process.communicate()
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    assert "Traceback" not in output
    assert not list((tmp_path / "data/web/w").iterdir())
    # As if it had been killed in the middle of a write.
    journal = tmp_path / ".scratch/crawl@w/journal.warc.gz"
    whole = journal.read_bytes()
    done = {entry.url for entry in warc.entries(journal)}
    assert 4 <= len(done) < 12
    journal.write_bytes(whole + whole[:100])

    site.asked.clear()
    texts, reasons = collect(tmp_path, source)
    assert (set(texts), reasons) == (set(site.routes), {})
    assert {site.url + path for path in site.paths()} == {site.url + path for path in site.routes} - done
    assert not (tmp_path / ".scratch/crawl@w").exists()


def test_a_crawl_that_is_resumed_follows_links_in_the_same_order(tmp_path: Path, site: Site) -> None:
    """Where max_pages cuts a tree of links off does not depend on where the crawl was interrupted."""
    tree = {"/": page("Root", *(f"/{n}" for n in range(5)))}
    tree |= {f"/{n}": page(f"Branch {n}", *(f"/{n}/{m}" for m in range(5))) for n in range(5)}
    tree |= {f"/{n}/{m}": page(f"Leaf {n} {m}") for n in range(5) for m in range(5)}
    site.routes = dict(tree)
    source = web(site, "/", follow=3, max_pages=12, delay_seconds=0.05)
    whole = set(collect(tmp_path / "whole", source)[0])
    assert len(whole) == 12

    site.asked.clear()
    process = start(tmp_path / "cut", source, "lib.sources.crawl", "w")
    while len(site.paths()) < 4:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert set(collect(tmp_path / "cut", source)[0]) == whole
    assert len(site.paths()) <= 13  # the one that was under way is asked for again


def test_a_refresh_changes_the_crawl_exactly_when_a_page_changed(tmp_path: Path, site: Site) -> None:
    tags = {"/tag": "1", "/date": "Tue, 24 Nov 2026 10:00:00 GMT"}

    def tagged(handler: Handler) -> None:
        if handler.headers.get("If-None-Match") == tags["/tag"]:
            handler.give("", status=304)
        else:
            handler.give(page(f"Version {tags['/tag']}"), ETag=tags["/tag"])

    def dated(handler: Handler) -> None:
        if handler.headers.get("If-Modified-Since") == tags["/date"]:
            handler.give("", status=304)
        else:
            handler.give(page("Dated"), Last_Modified=tags["/date"])

    site.routes = {"/tag": tagged, "/date": dated, "/plain": page("Plain"), "/dies": page("Dies"), "/flaky": page("F")}
    source = web(site, *site.routes, sitemaps=[f"{site.url}/map.xml"], follow=1)
    site.routes |= {"/map.xml": sitemap(site, "/mapped"), "/mapped": page("Mapped", "/linked"), "/linked": page("L")}
    texts, _ = collect(tmp_path, source)
    assert len(texts) == 7
    kept = tmp_path / "data/web/w/crawl.warc.gz"

    def refresh() -> bool:
        before = kept.read_bytes(), kept.stat().st_mtime_ns
        process = start(tmp_path, source, "lib.sources.crawl", "w")
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert ("no page changed" in output) == ((kept.read_bytes(), kept.stat().st_mtime_ns) == before)
        return kept.read_bytes() != before[0]

    site.asked.clear()
    assert not refresh()
    assert len(site.paths()) == 8
    # A server in trouble takes no page away, nor what it leads to; one that says that a page is gone does.
    for path in ("/flaky", "/map.xml", "/mapped"):
        site.routes[path] = lambda handler: handler.give("", status=503)
    assert not refresh()
    assert site.paths()[-1] == "/linked"
    tags["/tag"] = "2"
    del site.routes["/dies"]
    assert refresh()
    texts, reasons = collect(tmp_path, source)
    assert "Version 2" in texts["/tag"]
    assert set(texts) == {"/tag", "/date", "/plain", "/flaky", "/mapped", "/linked"}
    assert reasons == {"/dies": "http_404"}
    assert not refresh()


def test_crawl_of_what_is_no_web_source(tmp_path: Path, site: Site) -> None:
    process = start(tmp_path, web(site, "/a"), "lib.sources.crawl", "x")
    assert "params.yaml has no web source 'x'; there are: w" in process.communicate()[0]
    assert process.returncode == 1


@pytest.mark.slow
def test_dvc_sees_the_crawl_and_a_refresh_that_changed_it(tmp_path: Path, site: Site) -> None:
    site.routes = {"/a": page("Aries"), "/b": page("Bull")}
    project.make(tmp_path, {"w": web(site, "/a", "/b")})
    for name in ("lib", "stages"):
        shutil.copytree(project.REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(project.REPOSITORY / ".dvcignore", tmp_path / ".dvcignore")

    def run(*command: str) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}
        environment.pop("DVC_ROOT", None)
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("dvc", "init", "--no-scm", "--quiet")
    assert "made the empty folder data/web/w" in run("python", "-m", "lib.inputs")
    assert "Running stage 'collect@w'" in run("dvc", "repro", "collect@w")
    asked = len(site.asked)
    run("python", "-m", "lib.sources.crawl", "w")  # robots.txt and two pages
    assert len(site.asked) == asked + 3
    assert "Running stage" not in run("dvc", "repro", "collect@w")
    site.routes["/b"] = page("Beaver")
    run("python", "-m", "lib.sources.crawl", "w")
    asked = len(site.asked)
    assert "Running stage 'collect@w'" in run("dvc", "repro", "collect@w")
    assert len(site.asked) == asked
    assert any("Beaver" in document.text for document in read_documents(tmp_path / "data/raw/w/documents"))


def test_a_damaged_crawl_is_named(tmp_path: Path, site: Site) -> None:
    site.routes = {"/a": page("Aries")}
    source = web(site, "/a")
    collect(tmp_path, source)
    kept = tmp_path / "data/web/w/crawl.warc.gz"
    kept.write_bytes(kept.read_bytes()[:-20])
    with pytest.raises(SmeltError, match=r"crawl\.warc\.gz is damaged"):
        collect(tmp_path, web(site, "/a", "/b"))
