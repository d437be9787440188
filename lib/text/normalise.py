"""The same text in the same bytes: one Unicode form, one kind of line end, no invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from datatrove.data import Document as Row
from ftfy import TextFixerConfig, fix_text
from ftfy.badness import is_bad

from lib.params import clean
from lib.text.blocks import Rejects
from lib.text.steps import Step

# ftfy's settings in datatrove's FTFYFormatter: mend what was decoded wrongly, leave the writer's own choices alone.
_FTFY = TextFixerConfig(
    unescape_html="auto", fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False,
    fix_line_breaks=False, normalization=None, explain=False,
)  # fmt: skip
# What ftfy can change even where `is_bad` sees nothing: entities, control characters, lone surrogates.
_ENTITY = re.compile("&#?[0-9A-Za-z]{1,24};")
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ufeff\ufff9-\ufffc\ud800-\udfff]")

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, soft hyphens, byte order marks, direction marks. Zero-width joiners stay: Persian, Hindi and emoji
# are spelled with them.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffe\uffff]"
)
_SPACES = re.compile(r"[\xa0\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{4,}")
_QUOTES = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")


def _may_change(text: str) -> bool:
    if _CONTROL.search(text) or ("&" in text and _ENTITY.search(text)):
        return True
    return not text.isascii() and is_bad(text)


def mend(text: str) -> str:
    """Undo wrong decoding ("cafÃ©"), as ftfy.fix_text does, which is asked only about lines that it may change."""
    if not _may_change(text):
        return text
    settings, lines = _FTFY, []
    for line in text.split("\n"):
        if settings is _FTFY and "<" in line:  # ftfy takes what follows for HTML source, and keeps its entities
            settings = _FTFY._replace(unescape_html=False)
        lines.append(fix_text(line, settings) if _may_change(line) else line)
    return "\n".join(lines)


def compose(text: str) -> str:
    """Unicode's composed form, NFC."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def straighten(text: str) -> str:
    return text if text.isascii() else text.translate(_QUOTES)


def drop_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def tidy(text: str) -> str:
    """Newlines; plain spaces; no blanks at line ends; at most two blank lines in a row, none at the ends.

    Indentation and spaces inside a line stay: code and tables need them.
    """
    text = _LINE_ENDS.sub("\n", text)
    if not text.isascii():
        text = _SPACES.sub(" ", text)
    return _BLANK_LINES.sub("\n\n\n", _TRAILING.sub("", text)).strip("\n")


# In this order: what ftfy makes of a byte may be a mark to drop, and dropping one may leave a blank at a line's end.
_EDITS: dict[str, Callable[[str], str]] = {
    "mojibake": mend,
    "control_characters": drop_invisible,
    "unicode": compose,
    "quotes": straighten,
    "whitespace": tidy,
}


class Normalise(Step):
    """Runs the edits that are switched on; running it twice changes nothing more."""

    name = "normalise"

    def __init__(self, rules: clean.Normalise, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._edits = [(kind, edit) for kind, edit in _EDITS.items() if getattr(rules, kind)]

    def apply(self, row: Row) -> str | None:
        for kind, edit in self._edits:
            text = edit(row.text)
            if len(text) != len(row.text):
                self.removed[kind] += len(row.text) - len(text)
            row.text = text
        return None
