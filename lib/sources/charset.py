"""The text of bytes whose charset is declared wrongly, or not at all."""

from __future__ import annotations

import codecs

import charset_normalizer
from charset_normalizer.constant import IANA_SUPPORTED

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
# What servers declare without looking: any byte is a letter in them, so that they decode proves nothing.
_WEAK = {"utf-8", "ascii", "iso8859-1", "cp1252", "iso8859-15"}
_SAMPLE = 64 * 1024  # bytes looked at to find a charset


# A page may declare anything that Python has a codec for: `hex` and `unicode_escape` are none of the web's, and neither
# is UTF-7 any more.
_CHARSETS = (set(IANA_SUPPORTED) - {"utf_7"}) | {"iso8859_1"}


def _known(charset: str | None) -> str | None:
    try:
        name = codecs.lookup(charset).name if charset else ""
    except (LookupError, ValueError):
        return None
    return name if name.replace("-", "_") in _CHARSETS else None


def decode(data: bytes, declared: str | None) -> str | None:
    """The text, or None when it is not text in any charset.

    UTF-8 that is valid is UTF-8, whatever was declared: other text hardly ever is. A declared charset is believed when
    it decodes all of the text and not just anything; else the content decides (charset-normalizer), and if it cannot,
    a declared single-byte charset is better than nothing.
    """
    mark = next((name for start, name in _MARKS if data.startswith(start)), None)
    named = _known(declared)
    for charset in (mark, "utf-8", None if named in _WEAK else named):
        if charset:
            try:
                text = data.decode(charset)
            except (UnicodeDecodeError, ValueError):
                continue
            # Binary files are often valid UTF-8 to the letter; text has no NUL.
            return None if "\0" in text else text
    if b"\0" in data:
        return None
    sample = data[:_SAMPLE]
    if len(data) > _SAMPLE:  # not cut inside a character: these two bytes are never part of a longer one
        sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b"<")) + 1] or sample
    found = charset_normalizer.from_bytes(sample).best()
    charset = found.encoding if found else (named if named in _WEAK - {"utf-8", "ascii"} else None)
    return data.decode(charset, errors="replace") if charset else None
