"""Crawling a real server on this machine, through the stage `collect`."""

from __future__ import annotations

from pathlib import Path

from lib.text.documents import read_documents
from tests.sources.crawling import collect, web
from tests.sources.site import Site, page


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
