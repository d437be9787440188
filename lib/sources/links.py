"""URLs, and where they are found: in the links of pages and in sitemaps (https://www.sitemaps.org/protocol.html)."""

from __future__ import annotations

import io
from typing import NamedTuple

from lxml import etree, html
from yarl import URL

MAX_URL = 2000  # characters; longer ones are made by programs, for programs


def normalise(url: str, base: str | None = None) -> str | None:
    """One spelling of a URL, joined to `base`: no fragment, no user name; None when it is not of the web."""
    try:
        found = URL(url.strip())
        found = URL(base).join(found) if base else found
        found = found.with_fragment(None)
        if found.scheme not in ("http", "https") or not found.host:
            return None
        found = found.with_user(None)
        if found.is_default_port():
            found = found.with_port(None)
        text = str(found.with_path("/", keep_query=True) if found.raw_path in ("", "/") else found)
    except ValueError:  # of any part: links have all sorts of things in them
        return None
    return text if len(text) <= MAX_URL and text.isascii() else None


def origin(url: str) -> str:
    """Scheme, host and port of a normalised URL: what has one robots.txt and one queue."""
    return str(URL(url).origin())


def in_page(page: bytes, url: str) -> list[str]:
    """The links of an HTML page to its own host, in order, each once."""
    try:
        tree = html.fromstring(page, parser=html.HTMLParser(encoding="utf-8", collect_ids=False))
    except (etree.LxmlError, ValueError):
        return []
    own = origin(url)
    base = next((href for href in tree.xpath("//base/@href")), "")
    base = (normalise(base, url) if base else None) or url
    found = (normalise(href, base) for href in tree.xpath("//a/@href | //area/@href"))
    return list(dict.fromkeys(link for link in found if link and origin(link) == own))


class Sitemap(NamedTuple):
    sitemaps: list[str]
    pages: list[str]


def in_sitemap(content: bytes, url: str, most: int) -> Sitemap | None:
    """What a sitemap or an index of sitemaps lists, the first `most` entries; None when it is neither.

    XML (entities are not resolved, so that they cannot grow) or plain text, one URL a line.
    """
    sitemaps: dict[str, None] = {}
    pages: dict[str, None] = {}
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = content.decode("utf-8-sig", errors="replace").split()
        if not lines or normalise(lines[0]) is None:
            return None
        found = (normalise(line) for line in lines[:most])
        return Sitemap([], list(dict.fromkeys(page for page in found if page)))
    root = None
    try:
        for event, element in etree.iterparse(
            io.BytesIO(content), events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False
        ):
            name = etree.QName(element).localname if isinstance(element.tag, str) else ""
            if root is None:
                root = name
                if root not in ("urlset", "sitemapindex"):
                    return None
            if event == "end" and name == "loc":
                parent = element.getparent()
                inside = etree.QName(parent).localname if parent is not None else ""
                link = normalise(element.text or "", url)
                if link and inside in ("url", "sitemap"):
                    (sitemaps if inside == "sitemap" else pages)[link] = None
                if len(sitemaps) + len(pages) >= most:
                    break
            elif event == "end" and name in ("url", "sitemap"):
                element.clear()
                while element.getprevious() is not None:  # or the tree grows with the file
                    del element.getparent()[0]
    except (etree.LxmlError, ValueError):  # ValueError: a name that XML does not allow
        if root is None:
            return None  # else: what came before the mistake is taken
    return Sitemap(list(sitemaps), list(pages))
