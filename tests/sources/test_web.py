"""Documents from WARC files, whoever wrote them."""

from __future__ import annotations

import gzip
import io
import os
import random
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from lib.params.sources import WebSource
from lib.sources import links, web
from lib.sources.charset import decode
from lib.sources.robots import Protego, Robots
from lib.sources.time_limit import Crashed, TimeLimit
from tests.sources.site import page

URL = "http://example.org/"
HTML = [("Content-Type", "text/html")]
SOURCE = WebSource(
    kind="web",
    input="data/web/w",
    licence="CC0-1.0",
    weight=1.0,
    epochs=1,
    rules="prose",
    limit=None,
    pii="keep",
    urls=[],
    sitemaps=[],
    follow=0,
    max_pages=1,
    max_page_mib=1,
    delay_seconds=0,
    max_delay_seconds=0,
    timeout_seconds=1,
    retries=0,
    retry_seconds=0,
    extract_seconds=20,
    user_agent="Smelt/0.1",
)


def record(
    writer: WARCWriter, url: str, body: bytes, status: str = "200 OK", headers: Any = HTML, kind: str = "response"
) -> None:
    http = StatusAndHeaders(status, headers, protocol="HTTP/1.1") if kind == "response" else None
    extra = {} if http else {"warc_content_type": dict(headers).get("Content-Type", "")}
    writer.write_record(
        writer.create_warc_record(url, kind, payload=io.BytesIO(body), length=len(body), http_headers=http, **extra)
    )


def read(folder: Path, **changes: Any) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Texts and reasons by what follows the source's name in the id, and what was logged."""
    told: list[str] = []
    items = list(web.read(folder, "w", SOURCE.model_copy(update=changes), told.append))
    assert len({document.id for document, _ in items}) == len(items)
    texts = {document.id[2:]: document.text for document, reason in items if reason is None}
    return texts, {document.id[2:]: reason for document, reason in items if reason is not None}, told


def test_files_of_other_tools(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with (tmp_path / "sub/wget.warc.gz").open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        writer.write_record(writer.create_warcinfo_record("wget.warc.gz", {"software": "Wget"}))
        record(writer, URL + "robots.txt", b"User-agent: *", headers=[("Content-Type", "text/plain")])
        record(writer, URL + "zip", gzip.compress(page("Zip").encode()), headers=[*HTML, ("Content-Encoding", "gzip")])
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (page("Ch").encode(), b"<p>end</p>", b""))
        record(writer, URL + "chunked", chunked, headers=[*HTML, ("Transfer-Encoding", "chunked")])
        record(writer, URL + "old", b"", "301 Moved", [("Location", "/zip")])
        record(writer, URL + "gone", b"", "404 Not Found")
        record(writer, URL + "br", b"\x0b\x02\x80hello\x03", headers=[*HTML, ("Content-Encoding", "br")])
        record(writer, URL + "zip", b"outlink: http://example.org/x\r\n", kind="metadata")  # a note of another tool
        record(writer, "dns:example.org", b"1.2.3.4", kind="resource", headers=[("Content-Type", "text/dns")])
        record(writer, URL + "image", b"\x89PNG", headers=[("Content-Type", "image/png")])
    with (tmp_path / "extract.warc").open("wb") as stream:  # not compressed
        writer = WARCWriter(stream, gzip=False)
        record(writer, URL + "wet", "Größe".encode(), kind="conversion", headers=[("Content-Type", "text/plain")])
        record(writer, URL + "resource", page("Res").encode(), kind="resource", headers=HTML)
    (tmp_path / "README.txt").write_text("x")
    (tmp_path / ".hidden.warc").write_text("x")
    texts, reasons, _ = read(tmp_path)
    assert {name: text.split("building ")[-1].split()[0] for name, text in texts.items()} == {
        URL + "zip": "Zip",
        URL + "chunked": "Ch",
        URL + "wet": "Größe",
        URL + "resource": "Res",
    }
    assert reasons == {
        URL + "robots.txt": "not_a_page",
        URL + "old": "redirected",
        URL + "gone": "http_404",
        URL + "br": "unsupported_encoding",
        URL + "image": "unsupported_type",
        "README.txt": "no_warc",
    }


def test_the_last_record_of_a_url_counts(tmp_path: Path) -> None:
    for name, title in (("1.warc.gz", "Old"), ("2.warc.gz", "New")):
        with (tmp_path / name).open("wb") as stream:
            writer = WARCWriter(stream, gzip=True)
            record(writer, URL, page(f"{title}-first").encode())
            record(writer, URL, page(title).encode())
            digest = "sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            writer.write_record(writer.create_revisit_record(URL, digest, URL, "2026-01-01T00:00:00Z"))
    texts, reasons, _ = read(tmp_path)
    assert "building New " in texts[URL]
    assert reasons == {}


@pytest.mark.parametrize("damage", ["torn", "flipped", "no warc", "empty record"])
def test_a_damaged_file_is_named_and_what_is_before_the_damage_is_read(tmp_path: Path, damage: str) -> None:
    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=True)
    record(writer, URL + "a", page("Aries").encode())
    first = stream.tell()
    record(writer, URL + "b", os.urandom(30_000).hex().encode())
    data = stream.getvalue()
    if damage == "torn":
        data = data[:-5000]
    elif damage == "flipped":
        data = data[: first + 2000] + b"\0" * 500 + data[first + 2500 :]
    elif damage == "no warc":
        data = data[:first] + b"This is something else. " * 100
    else:
        data = data[: first + 15]
    (tmp_path / "x.warc.gz").write_bytes(data)
    texts, reasons, told = read(tmp_path)
    assert "building Aries" in texts[URL + "a"]
    assert reasons["x.warc.gz"] == "broken_warc"
    assert "x.warc.gz: broken" in told[0]
    assert "the records before that were read" in told[0]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, lost, doubled or made up."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(changed) + 1)
        end = start + rng.randint(0, 40)
        piece = changed[start:end]
        changed[start:end] = rng.choice((b"", piece + piece, rng.randbytes(len(piece) or 1), piece[::-1]))
    return bytes(changed)


def test_nothing_that_comes_from_outside_raises_an_error() -> None:
    rng = random.Random(1)
    place = f"<url><loc>{URL}a</loc></url>"
    listed = f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{place * 3}</urlset>'
    rules = b"User-agent: *\nDisallow: /a*b$\nCrawl-delay: 1\nAllow: /\xff%zz\n"
    charsets = ["hex", "idna", "undefined", "unicode_escape", "utf-16", "utf-7", "shift_jis", "\0", "x" * 999, None]
    for _ in range(500):
        links.in_sitemap(mutate(listed.encode(), rng), URL, 10)
        text = mutate(page("x", "/a", "http://b/", "//c").encode(), rng)
        links.in_page(text, URL)
        decode(text, rng.choice(charsets))
        url = links.normalise(mutate(b"http://us:pw@ex.org:80/a/../b?q=1&r=%20#f", rng).decode("latin-1"), URL)
        known = Robots("Smelt", Protego.parse(mutate(rules, rng).decode(errors="replace")))
        if url is not None:
            assert links.normalise(url) == url
            assert links.origin(url).startswith("http")
            assert known.refuses(url) in (None, "robots")
        assert known.delay >= 0


def test_every_mutated_file_is_read_or_named(tmp_path: Path) -> None:
    rng = random.Random(1)
    for number in range(100):
        stream = io.BytesIO()
        writer = WARCWriter(stream, gzip=number % 2 == 0)
        for name in "abc":
            record(writer, URL + name, b"Some words.", headers=[("Content-Type", "text/plain")])
        record(writer, URL + "d", b"", "302 Found", [("Location", "/a")])
        record(writer, URL + "e", b"reason: robots\r\n", kind="metadata")
        folder = tmp_path / str(number)
        folder.mkdir()
        name = "x.warc.gz" if number % 2 == 0 else "x.warc"
        (folder / name).write_bytes(mutate(stream.getvalue(), rng))
        texts, reasons, _ = read(folder)
        if number % 2 == 0:  # compressed, the damage cannot pass unseen
            assert len(texts) + len(reasons) == 5 or reasons[name] == "broken_warc"


def test_files_that_lead_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "w"
    inside.mkdir()
    with (tmp_path / "secret.warc.gz").open("wb") as stream:
        record(WARCWriter(stream, gzip=True), URL, page("Secret").encode())
    (inside / "link.warc.gz").symlink_to(tmp_path / "secret.warc.gz")
    texts, reasons, _ = read(inside)
    assert (texts, reasons) == ({}, {"link.warc.gz": "link_out_of_the_folder"})


def test_bombs_in_a_file_are_cut_off(tmp_path: Path) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(100)) + packer.flush()
    with (tmp_path / "x.warc.gz").open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        record(writer, URL + "a", packed, headers=[*HTML, ("Content-Encoding", "gzip")])
        # trafilatura inflates what looks like gzip without being asked to.
        record(writer, URL + "b", packed)
    texts, reasons, _ = read(tmp_path)
    assert (texts, reasons) == ({}, {URL + "a": "too_large", URL + "b": "not_text"})


# ----------------------------------------------------------------------------------------------------------------------
# Charsets

GREEK = "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας και η μεγαλύτερη πόλη της χώρας. " * 5
GERMAN = "Die Größe der Öfen wird jährlich überprüft, und ein Ingenieur schreibt darüber einen Bericht. " * 5
JAPANESE = "東京は日本の首都であり、世界でも最大級の都市のひとつである。人口は約千四百万人。" * 5
RUSSIAN = "Москва является столицей России и крупнейшим городом страны по численности населения. " * 5


@pytest.mark.parametrize(
    ("text", "charset", "declared"),
    [
        (GERMAN, "utf-8", None),
        (GERMAN, "utf-8", "iso-8859-1"),  # declared wrongly
        (GERMAN, "utf-8", "shift_jis"),
        (GERMAN, "cp1252", "iso-8859-1"),
        (GERMAN, "cp1252", "utf-8"),
        (GERMAN, "utf-16", None),
        (GREEK, "iso8859-7", "iso-8859-7"),
        (GREEK, "cp1253", "utf-8"),
        (RUSSIAN, "cp1251", "iso-8859-1"),
        (RUSSIAN, "koi8-r", None),
        (RUSSIAN, "cp1251", "no-such-charset"),
        (JAPANESE, "shift_jis", "utf-8"),
        (JAPANESE, "euc-jp", "shift_jis"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (JAPANESE * 300, "shift_jis", None),  # longer than what is looked at
    ],
)
def test_charsets_are_found_from_the_content(text: str, charset: str, declared: str | None) -> None:
    assert decode(text.encode(charset), declared) == text


def test_what_is_no_text() -> None:
    assert decode(bytes(range(256)) * 10, None) is None
    assert decode(b"\0\0\0", "utf-8") is None
    assert decode(b"", None) == ""


def test_a_declaration_inside_the_page_is_believed(tmp_path: Path) -> None:
    body = page("Олимп").replace("<head>", '<head><meta charset="windows-1251">').encode("cp1251")
    with (tmp_path / "x.warc.gz").open("wb") as stream:
        record(WARCWriter(stream, gzip=True), URL, body)
    assert "building Олимп" in read(tmp_path)[0][URL]


# ----------------------------------------------------------------------------------------------------------------------
# Time


def naughty(data: bytes) -> int:
    if data == b"slow":
        time.sleep(60)
    if data == b"dies":
        os._exit(1)
    if data == b"raises":
        raise ValueError("no")
    return len(data)


def test_a_call_that_takes_for_ever_or_dies_harms_nobody() -> None:
    with TimeLimit(naughty, 0.2) as limited:
        assert limited(b"good") == 4
        with pytest.raises(TimeoutError):
            limited(b"slow")
        for data in (b"raises", b"dies"):
            with pytest.raises(Crashed):
                limited(data)
        assert limited(b"x" * 5_000_000) == 5_000_000


def test_a_page_that_takes_too_long_does_not_stop_the_others(tmp_path: Path) -> None:
    with (tmp_path / "x.warc.gz").open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for name in "ab":
            record(writer, URL + name, page(name).encode())
        record(writer, URL + "c", b"Plain words.", headers=[("Content-Type", "text/plain")])
    texts, reasons, _ = read(tmp_path, extract_seconds=1e-4)
    assert texts == {URL + "c": "Plain words."}
    assert reasons == dict.fromkeys((URL + "a", URL + "b"), "extraction_timed_out")
