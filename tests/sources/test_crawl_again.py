"""A crawl that was interrupted, or is asked for again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources import warc
from lib.text.documents import read_documents
from tests.sources.crawling import collect, sitemap, web
from tests.sources.site import Handler, Site, page
from tests.text import project


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
