"""A web source over a site on this machine, and what `collect` makes of it."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from lib.text.documents import read_documents, read_table
from tests.sources.site import Site
from tests.text import project


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


def sitemap(site: Site, *paths: str, index: bool = False) -> str:
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    rows = "".join(f"<{inner}><loc>{site.url}{path}</loc></{inner}>" for path in paths)
    return f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</{outer}>'


@functools.cache
def packed() -> bytes:
    """200 MB in 900 kB."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(200)) + packer.flush()


def redirect(target: str, status: int = 302) -> Any:
    return lambda handler: handler.give("", status=status, Location=target)
