"""Mails and mailboxes: the headers worth reading, the body, and what is attached."""

from __future__ import annotations

import email
import email.message
import email.policy
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message

from lib.sources import encodings, html
from lib.sources.content import Content, Rejected, unique
from lib.sources.records import plain_text

HEADERS = ("From", "To", "Cc", "Subject", "Date")


def messages(content: Content) -> Iterator[Content | Rejected]:
    """The messages of a mailbox in the mbox form, one at a time.

    A message begins at a line `From ...` at the top of the file or after an empty line; `>From` in it is undone.
    """
    limit = content.budget.document
    with content.open() as stream:
        lines: list[bytes] = []
        size, after_blank, large = 0, True, False

        def message() -> Content | Rejected:
            return Rejected("too_large") if large else content.of_bytes("message.eml", b"".join(lines))

        started = False
        while line := stream.readline(limit + 1):
            if after_blank and line.startswith(b"From "):
                if started:
                    yield message()
                lines, size, large, started = [], 0, False, True
            elif not large:
                line = line[1:] if line.startswith((b">From ", b">>From ")) else line
                lines.append(line)
                size += len(line)
                if size > limit:
                    large, lines = True, []
            after_blank = line in (b"\n", b"\r\n")
        if started:
            yield message()


def parse(content: Content) -> Message:
    return email.message_from_bytes(content.read(), policy=email.policy.compat32)  # it takes what is malformed as it is


def _header(message: Message, name: str) -> str:
    try:
        pieces = decode_header(str(message[name]))
        text = "".join(
            piece if isinstance(piece, str) else encodings.decode(piece, _codec(charset)) for piece, charset in pieces
        )
    except Exception:
        text = str(message[name])
    return " ".join(text.split())


def _codec(charset: str | None) -> str | None:
    try:
        "".encode(charset or "utf-8")
    except (LookupError, ValueError):
        return None
    return charset


def _payload(part: Message) -> bytes:
    """The bytes of a part, its transfer encoding undone."""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    data = _payload(part)
    if part.get_content_subtype() == "html":
        return html.extract(data) or plain_text(encodings.decode(data, _charset(part, data)))
    return encodings.repair(encodings.decode(data, _charset(part, data)))


def _charset(part: Message, data: bytes) -> str | None:
    try:
        declared = _codec(part.get_content_charset())
    except Exception:
        declared = None
    return declared or encodings.detect(data)


def _leaves(part: Message) -> Iterator[Message]:
    """The parts that hold something: attached messages are one each, with all that is in them."""
    if part.get_content_maintype() == "multipart" and isinstance(part.get_payload(), list):
        for child in part.get_payload():
            yield from _leaves(child)
    else:
        yield part


def text_of(message: Message) -> str:
    """The headers worth reading and the body: the plain text where there is one, else that of the HTML."""
    bodies = [part for part in _leaves(message) if not _attached(part)]
    plain = [part for part in bodies if part.get_content_subtype() != "html"]
    body = "\n\n".join(text for part in plain or bodies if (text := _text(part).strip("\n")))
    head = "\n".join(f"{name}: {value}" for name in HEADERS if name in message and (value := _header(message, name)))
    return f"{head}\n\n{body}" if body.strip() else ""


def _attached(part: Message) -> bool:
    return part.get_content_maintype() != "text" or part.get_content_disposition() == "attachment" or bool(_name(part))


def _name(part: Message) -> str:
    try:
        name = part.get_filename() or ""
    except Exception:
        return ""
    return "".join(character for character in name if character.isprintable()).replace("\\", "/").rpartition("/")[2]


def attachments(message: Message, content: Content) -> Iterator[tuple[str, Content]]:
    """What is attached, by name. One without a name is `part-3`, by its place; the second of one name is `name~2`."""
    taken: set[str] = set()
    for number, part in enumerate(_leaves(message), start=1):
        if not _attached(part):
            continue
        inner = part.get_payload()
        if part.get_content_maintype() == "message" and isinstance(inner, list) and inner:
            name, data = _name(part) or f"part-{number}.eml", inner[0].as_bytes()
        else:
            name, data = _name(part) or f"part-{number}", _payload(part)
        yield unique(name, taken), content.of_bytes(name, data)
