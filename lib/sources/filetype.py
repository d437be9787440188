"""What a file is: by its content where that has a signature, by its name where it is plain text."""

from __future__ import annotations

import re
import zipfile

from lib.sources import encodings
from lib.sources.content import Content, Rejected

# Kinds whose name decides between them, as their content is text of no signature.
_NAMES = {
    "txt": "text", "text": "text", "md": "text", "markdown": "text", "rst": "text",
    "html": "html", "htm": "html", "xhtml": "html",
    "csv": "csv", "tsv": "tsv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl",
    "eml": "mail", "mbox": "mbox",
}  # fmt: skip
_SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # one without members
)
_PDF = re.compile(rb"(?:\A|[\x00-\x1f\x80-\xff])%PDF-\d")  # readers of PDF allow 1024 bytes before it
_OFFICE = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_HTML = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_XML = re.compile(r"\s*<(\?xml|svg|!doctype)\b", re.IGNORECASE)
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ \t]*\S?.*(?:\n[ \t]+.*)*\n")
_MAIL_HEADERS = {"from", "to", "subject", "date", "message-id", "mime-version", "received", "return-path"}
_MAIL_ONLY = {"message-id", "mime-version", "received", "return-path"}  # headers that nobody types at the top of a note
_MBOX = re.compile(r"From \S.*\n(?=[A-Za-z][A-Za-z0-9-]*:|>From )")


def kind_of(content: Content) -> str:
    """One of gzip, zstd, zip, epub, docx, pptx, xlsx, pdf, parquet, html, mail, mbox, csv, tsv, json, jsonl and text.

    Raises:
        Rejected: `unknown_file_type`, or `empty`.
    """
    head = content.head()
    if not head.strip(b"\x00 \t\r\n\f") and len(head) < 4096:
        raise Rejected("unknown_file_type" if b"\0" in head else "empty")
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return _kind_of_zip(content) if kind == "zip" else kind
    if _PDF.search(head[:1024]):
        return "pdf"
    if head[257:262] == b"ustar":  # a tar archive is mostly the text that is in it
        raise Rejected("unknown_file_type")
    return _kind_of_text(head, content.name)


def _kind_of_zip(content: Content) -> str:
    try:
        with content.open_seekable() as stream, zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:
                if archive.read("mimetype").strip() == b"application/epub+zip":
                    return "epub"
                raise Rejected("unknown_file_type")  # OpenDocument
    except Rejected:
        raise
    except Exception:
        return "zip"  # which will say what is wrong with it
    if "[Content_Types].xml" in names:
        for folder, kind in _OFFICE.items():
            if any(name.startswith(folder) for name in names):
                return kind
    return "zip"


def _kind_of_text(head: bytes, name: str) -> str:
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    named = _NAMES.get(extension)
    codec = encodings.detect(head, complete=False)
    if codec is None:
        raise Rejected("unknown_file_type")
    # No mark and no valid UTF-8: only a name that says text is believed. Pictures and programs end here.
    if extension and named is None and not codec.startswith("utf"):
        raise Rejected("unknown_file_type")
    text = encodings.decode(head, codec).lstrip("\ufeff")
    if _HTML.match(text):
        return "html"
    if _MBOX.match(text):
        return "mbox"
    if _is_mail(text):
        return "mail"
    if named == "json" and _is_json_lines(text):
        return "jsonl"
    if named is None and _XML.match(text):
        raise Rejected("unknown_file_type")
    if named == "mbox":
        return "text"
    return named or "text"


def _is_mail(text: str) -> bool:
    """It begins with headers of a mail, at least one of which is written by programs only."""
    found, position = set(), 0
    while match := _HEADER.match(text, position):
        found.add(match[1].lower())
        position = match.end()
    return len(found & _MAIL_HEADERS) > 1 and bool(found & _MAIL_ONLY)


def _is_json_lines(text: str) -> bool:
    first, newline, rest = text.strip().partition("\n")
    return bool(newline) and first.startswith("{") and first.rstrip().endswith("}") and rest.startswith("{")
