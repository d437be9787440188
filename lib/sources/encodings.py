"""From bytes of unknown encoding to text, and what was decoded wrongly before it came to us put right again."""

from __future__ import annotations

import codecs
import re

_MARKS = (  # UTF-32 before UTF-16: the little-endian mark of one begins with that of the other
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = bytes({*range(0x20), 0x7F} - {*b"\t\n\r\f\v\x1b"})  # the escape belongs to ISO-2022
_LETTERS = bytes(range(0x80, 0x100))
_MANY = 0.02  # share of control characters above which bytes are no text of eight bits
_SAMPLE = 8_192  # bytes around the first that are not ASCII, shown to charset-normalizer
_WIDE = ["utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be"]
# Out of the hundred that it knows, those that files are written in today: few letters fit many code pages.
_CODE_PAGES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r", "koi8_u"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "cp866", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp874"),
]
_ENOUGH = 6  # fewer letters beyond ASCII are too few to tell a code page by; the most common one is taken
# A character decoded wrongly is two or more beyond ASCII in a row, not all of them Western letters ("öß" is no fault),
# a control of Latin-1, or an "à" whose no-break space became a plain one. ftfy, at 0.2 s a megabyte, sees only these.
_SUSPECT = re.compile(r"[^\x00-\x7f][^\x00-\x7fÀ-ÿ]|[^\x00-\x7fÀ-ÿ][À-ÿ]|[\x80-\x9f]|Ã ")
_SHORT = 1_000_000  # characters: ftfy's own bound of what it repairs at once


def detect(data: bytes, complete: bool = True) -> str | None:
    """The codec that decodes `data`, or None where it is no text.

    A byte order mark decides; then valid UTF-8; then charset-normalizer's statistics, for UTF-16 without a mark where
    there are many control characters and for a code page where there are none. `complete=False` says that `data` is the
    beginning of more, and may end inside a character.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return codec
    if _count(data, _CONTROL) > _MANY * len(data):
        return _likely(data[: min(_SAMPLE, len(data) // 4 * 4)], _WIDE)
    if b"\x1b$" in data:  # seven bits, and so valid UTF-8
        return "iso2022_jp"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=complete)
        return "utf-8"
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
    if _count(data, _CONTROL) > _MANY / 10 * len(data):  # a code page does not vouch for itself as UTF-8 does
        return _likely(data[: min(_SAMPLE, len(data) // 4 * 4)], _WIDE)
    sample = data[start : start + _SAMPLE]
    if len(data) > start + _SAMPLE or not complete:  # not to end inside a character
        sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1] or sample
    return (_likely(sample, _CODE_PAGES) if _count(sample, _LETTERS) >= _ENOUGH else None) or "cp1252"


def _count(data: bytes, which: bytes) -> int:
    return len(data) - len(data.translate(None, which))


def _likely(sample: bytes, codecs_: list[str]) -> str | None:
    from charset_normalizer import from_bytes  # 0.1 s, seldom needed

    best = from_bytes(sample, cp_isolation=codecs_).best()
    return best.encoding if best else None


def decode(data: bytes, codec: str | None) -> str:
    """The text of `data`, with plain line ends, whatever the bytes are.

    `codec` may come from an earlier part of the file, or be claimed by a mail. What it does not decode is UTF-8, or
    else Windows-1252 with the five bytes that this leaves undefined taken from Latin-1.
    """
    for name in (codec or "utf-8", "utf-8-sig", "cp1252"):
        try:
            text = data.decode(name)
            break
        except UnicodeError:
            continue
    else:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def repair(text: str) -> str:
    """Undo mojibake ("FranÃ§ois"), line by line, as ftfy does where it is sure; nothing else is changed."""
    if text.isascii():
        return text
    from ftfy import fix_encoding

    if not _SUSPECT.search(text):
        return text
    lines = []
    for line in text.split("\n"):
        pieces = [line[start : start + _SHORT] for start in range(0, len(line), _SHORT)]
        lines.append("".join(fix_encoding(piece) if _SUSPECT.search(piece) else piece for piece in pieces))
    return "\n".join(lines)
