"""What a crawl finds by itself: sitemaps and links."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.sources.crawling import collect, packed, sitemap, web
from tests.sources.site import Site, page


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
