"""What mailing programs, web sites and extractors leave in a text, and its writer did not write.

Rules look at short paragraphs and lines, and ask for more than one sign: an article about cookies, or the manual of a
command named `unsubscribe`, keeps every word.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from datatrove.data import Document as Row

from lib.params import clean
from lib.text.analysis import analyse
from lib.text.blocks import Rejects
from lib.text.steps import Step


def _signs(*patterns: str) -> list[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in patterns]


def _count(signs: list[re.Pattern[str]], text: str) -> int:
    return sum(sign.search(text) is not None for sign in signs)


_SITE = r"(?:this|our|the) (?:web ?)?sites?"
_COOKIES = _signs(
    rf"{_SITE} uses? (?:\w+ ){{0,2}}cookies|\bwe (?:\w+ ){{0,4}}use (?:\w+ ){{0,2}}cookies",
    r"cookies (?:\w+ )?to (?:\w+ )?(?:ensure|improve|give|provide|enhance|personali[sz]e|offer|analy[sz]e|deliver)",
    r"(?:accept|reject|allow|decline)(?:ing)? (?:all |the |our |these )?(?:use of )?cookies|(?:accept|reject) all\b",
    rf"by (?:continuing to (?:use|browse|visit)|using|clicking|browsing) (?:{_SITE}|[\"']?(?:accept|ok|i agree))",
    r"(?:agree|consent) to (?:our|the|their) use of cookies|your consent",
    r"cookie (?:policy|notice|settings|preferences|statement)|privacy policy|manage (?:your )?preferences",
)
_BUTTON = re.compile(
    r"(?:accept|reject|decline|allow|deny)(?: all)?(?: cookies)?|(?:cookie|privacy) (?:settings|preferences|policy)|"
    r"(?:manage|customi[sz]e)(?: (?:your )?(?:cookies|preferences|options|settings))?|got it!?|i (?:agree|accept)|ok|"
    r"learn more|more information|close"
)
_MAIL = r"(?:e-?mail|message|newsletter|mailing|notification)"
_ACT = r"(?:\bclick\b|\breply\b|\bvisit\b|\bgo to\b|\bfollow (?:this|the) link|\bsend\b|\bhere\b|https?:)"
_UNSUBSCRIBE = _signs(
    rf"\byou(?:'re| are|'ve| have)? (?:receiv(?:ing|ed)|getting|got(?:ten)?) this {_MAIL} (?:because|as|since)",
    rf"\b(?:unsubscribe|opt[ -]out)\b[^.]{{0,80}}{_ACT}",
    rf"\b(?:stop|no longer|not) (?:wish |want |like )?(?:to )?receiv(?:e|ing)\b[^.]{{0,40}}\b(?:{_MAIL}|update)s?\b"
    rf"[^.]{{0,80}}{_ACT}",
    r"\bclick (?:here|below|on the link|this link|the link)[^.]{0,40}\b(?:unsubscribe|opt[ -]out)",
    r"\bunsubscribe (?:here|instantly|at any time)\b|\bunsubscribe: *(?:https?:|mailto:|<)",
)
_FOOTER_ITEM = (
    r"(?:unsubscribe|(?:manage|update|change) (?:your )?(?:e-?mail )?(?:preferences|subscriptions?|profile)|"
    rf"forward (?:this )?to a friend|view (?:this {_MAIL} |it )?in (?:your |a )?browser|privacy(?: policy)?|"
    r"terms(?: of (?:use|service))?|contact us|report spam)"
)
_FOOTER = re.compile(rf"\W*{_FOOTER_ITEM}(?:\s*[|·•/,-]\s*{_FOOTER_ITEM})+\W*")
_CONFIDENTIAL = _signs(
    rf"\b(?:this|the) (?:{_MAIL}|communication|transmission)\b[^.]{{0,120}}\b(?:confidential|privileged|proprietary)",
    r"\bintended (?:only|solely|exclusively) for\b|\bintended recipients?\b|\bnamed addressee",
    r"\b(?:received|sent to you)\b[^.]{0,60}\b(?:in error|by mistake)\b|\berror in transmission",
    r"\b(?:notify|inform|contact|advise) (?:us|the sender|the originator|postmaster)\b",
    r"\b(?:disclos|disseminat|distribut|cop(?:y|ying)\b|review|use)[^.]{0,120}\b(?:prohibited|unauthori[sz]ed|forbidden)",
    r"\bdelete (?:this|the|it|all cop)|\bdestroy (?:this|the|it|all cop)",
    r"\b(?:views|opinions)\b[^.]{0,60}\bexpressed\b[^.]{0,80}\b(?:author|sender|individual)|\bfree (?:of|from) viruses",
)
_COPYRIGHT = re.compile(r"\W*(?:(?:copyright|©|\(c\)).{0,100}\W)?all rights reserved\W*")


def _is_cookie_banner(text: str) -> bool:
    return len(text) <= 600 and "cookie" in text and _count(_COOKIES, text) >= 2


def _is_unsubscribe_footer(text: str) -> bool:
    return len(text) <= 500 and (_FOOTER.fullmatch(text) is not None or _count(_UNSUBSCRIBE, text) >= 1)


def _is_disclaimer(text: str) -> bool:
    if len(text) <= 200 and _COPYRIGHT.fullmatch(text):
        return True
    return len(text) <= 3000 and _count(_CONFIDENTIAL, text) >= 2


# Which words a text must have for a rule to be worth asking, in lower case.
_RULES: dict[str, tuple[Callable[[str], bool], tuple[str, ...]]] = {
    "cookie_banners": (_is_cookie_banner, ("cookie",)),
    "unsubscribe": (_is_unsubscribe_footer, ("unsubscri", "opt", "this ", "receiv")),
    "disclaimers": (_is_disclaimer, ("confidential", "privileged", "intended ", "all rights reserved", "prohibited")),
}
_BREAK = re.compile(r"(\n[^\S\n]*\n\s*)")


def _plain(text: str) -> str:
    """`text` as the rules look at it: in lower case, on one line."""
    return " ".join(text.lower().split())


def _remove(text: str, is_artefact: Callable[[str], bool], buttons: bool) -> str:
    """`text` without the paragraphs, and the lines of paragraphs, that are artefacts.

    With `buttons`, also without the lines that are the buttons of a banner, next to it.
    """
    parts = _BREAK.split(text)  # paragraphs, and what stands between them
    changed = after = False
    for index in range(0, len(parts), 2):
        lines = parts[index].split("\n")
        kept = [] if is_artefact(_plain(parts[index])) else lines
        if len(kept) > 1:
            kept = [line for line in kept if not is_artefact(_plain(line))]
        if buttons and (after or len(kept) < len(lines)):
            kept = [line for line in kept if not _BUTTON.fullmatch(_plain(line))]
        after = len(kept) < len(lines)
        if after:
            changed, parts[index] = True, "\n".join(kept)
            if not kept and index:
                parts[index - 1] = ""
    return "".join(parts).strip("\n") if changed else text


_BLOCK = re.findall(
    r"\S+",
    """address article aside blockquote body br center dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4
    h5 h6 head header hr html li main nav noscript ol p pre section table tbody td tfoot th thead title tr ul""",
)
_INLINE = re.findall(
    r"\S+",
    """a abbr b button cite code del em font i iframe img input ins kbd label link meta option q s samp select small
    source span strike strong sub sup svg textarea tt u var video""",
)
# Names that no one writes in angle brackets but in HTML; "<source>" and "<title>" are what manuals call arguments.
_UNMISTAKABLE = {"br", "hr", "div", "span", "li", "ul", "ol", "td", "tr", "th", "tbody", "thead", "p"}
_TAG = re.compile(
    rf"<(?P<close>/?)(?P<name>{'|'.join(sorted(_BLOCK + _INLINE, key=len, reverse=True))})"
    r"(?P<attributes>(?:\s+[a-z][\w:-]*(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]+))?)*)\s*/?>",
    re.IGNORECASE,
)
_HIDDEN = re.compile(
    r"<!--.{0,5000}?-->|<!doctype\b[^<>]{0,300}>|<(script|style)\b[^<>]{0,500}>.{0,50000}?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
_QUOTED = re.compile(r"(```.*?(?:```|\Z)|``.*?``|`[^`\n]*`)", re.DOTALL)
_MENTION = re.compile(r"[`\"']?\s+(?:html )?(?:tags?|elements?|attributes?)\b|[`\"']")


def strip_html(text: str) -> str:
    """`text` without markup: comments, scripts and styles with their content; tags; entities as what they stand for.

    Code between backticks stays; so does a tag that the text speaks of ("the <b> tag") or that may be a placeholder.
    """
    if "<" not in text and "&" not in text:
        return text
    return "".join(
        part
        if number % 2
        else _ENTITY.sub(lambda entity: html.unescape(entity[0]).replace("\xa0", " "), _untagged(part))
        for number, part in enumerate(_QUOTED.split(text))
    )


def _untagged(text: str) -> str:
    if "<" not in text:
        return text
    text = _HIDDEN.sub("", text)
    tags = list(_TAG.finditer(text))
    closed = {tag["name"].lower() for tag in tags if tag["close"]}
    opened = {tag["name"].lower() for tag in tags if not tag["close"]}
    parts, position = [], 0
    for tag in tags:
        name = tag["name"].lower()
        paired = name in closed and name in opened
        if not (paired or name in _UNMISTAKABLE or tag["attributes"]) or _MENTION.match(text, tag.end()):
            continue
        parts += [text[position : tag.start()], "\n" if name in _BLOCK else ""]
        position = tag.end()
    return re.sub(r"\n\s*\n\s*", "\n\n", "".join([*parts, text[position:]])) if parts else text


class Artefacts(Step):
    name = "artefacts"

    def __init__(self, rules: clean.Artefacts, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._html = rules.html
        self._kinds = [(kind, *_RULES[kind]) for kind in _RULES if getattr(rules, kind)]

    def apply(self, row: Row) -> str | None:
        if self._html:
            self._edit(row, "html", strip_html(row.text))
        for kind, is_artefact, words in self._kinds:
            lower = analyse(row.text).lower
            if any(word in lower for word in words):
                self._edit(row, kind, _remove(row.text, is_artefact, buttons=kind == "cookie_banners"))
        return None

    def _edit(self, row: Row, kind: str, text: str) -> None:
        if text != row.text:
            self.removed[kind] += len(row.text) - len(text)
            row.text = text
