"""The text of a web page: what its reader came for, without navigation, banners and footers."""

from __future__ import annotations


def extract(html: bytes) -> str | None:
    """The main text of a page (trafilatura), None where there is none. The encoding is found from the bytes."""
    import trafilatura  # 0.4 s, only where there is HTML

    return trafilatura.extract(html, include_comments=False)
