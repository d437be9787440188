"""What a page is, and its text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from lib.sources.charset import decode
from lib.sources.warc import Answer

_HTML = {"text/html", "application/xhtml+xml"}
_TEXT = {"text/plain", "text/markdown", "text/x-rst"}
_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.I | re.S)


def kind(answer: Answer) -> Literal["html", "text"] | None:
    """What the server says that a page is, None when it is nothing that has text for us."""
    told = (answer.header("content-type") or "").partition(";")[0].strip().lower()
    if told in _HTML or not told:
        return "html"  # or nothing is said, and `text` looks at it
    return "text" if told in _TEXT else None


def text(page: Answer, extract: Callable[[bytes], str | None]) -> tuple[str, str | None]:
    """The text of a page, and why it is rejected or None. `extract` finds the text of HTML.

    HTML that is declared as plain text is HTML: servers guess by the name of a file.
    """
    is_a = kind(page)
    if is_a is None:
        return "", "unsupported_type"
    declared = _CHARSET.search(page.header("content-type") or "")
    if declared is None and is_a == "html":
        declared = _CHARSET.search(page.body[:2048].decode("latin-1"))
    content = decode(page.body, declared[1] if declared else None)
    if content is None:
        return "", "not_text"
    if not content.strip():
        return "", "empty"
    looks = _LOOKS_LIKE_HTML.match(page.body[:4096])
    if looks is None and (is_a == "text" or not page.header("content-type")):
        return content, None
    found = extract(content.encode("utf-8", errors="replace"))
    return (found, None) if found else ("", "no_text_in_html")
