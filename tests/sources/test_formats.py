"""Each kind of file against the text that another library was given to write."""

from __future__ import annotations

import datetime
import decimal
import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.pipeline.errors import SmeltError
from tests.sources import samples
from tests.sources.folders import SMALL, documents, texts, write
from tests.sources.samples import ARCHIVE, BOILER, PUMP, ROWS

NOT_FOUND = ("Home", "Imprint", "margin", "Confidential")


def test_every_kind_is_read(tmp_path: Path) -> None:
    """All that params.yaml lists, under its right name: no rejects, and the text that was put in."""
    found, reasons = texts(write(tmp_path / "in", samples.every_kind(tmp_path)))
    assert reasons == {}
    everything = "\n".join(found.values())
    assert not any(word in everything for word in NOT_FOUND)
    prose = [name for name in found if not name.startswith(("a.csv", "a.tsv", "a.json#", "a.xlsx", "a.parquet"))]
    assert all(BOILER in found[name] or ARCHIVE in found[name] for name in prose), prose
    assert len(prose) == 25
    assert len(found) == len(prose) + 5 * len(ROWS)


def test_wrong_names_change_nothing(tmp_path: Path) -> None:
    """Files whose content says what it is, under the name of another kind."""
    kinds = {name: data for name, data in samples.every_kind(tmp_path).items() if name.split(".")[1] not in
             ("txt", "md", "rst", "csv", "tsv", "json", "jsonl")}  # fmt: skip
    right, _ = texts(write(tmp_path / "right", kinds))
    for extension in ("txt", "pdf", "docx", "xyz"):
        renamed = {f"{name}.{extension}": data for name, data in kinds.items()}
        wrong, reasons = texts(write(tmp_path / extension, renamed))
        assert reasons == {}
        assert sorted(wrong.values()) == sorted(right.values())


def test_pages_and_slides_are_divided_by_a_form_feed(tmp_path: Path) -> None:
    found, _ = texts(write(tmp_path, {"a.pdf": samples.pdf((BOILER, "", ARCHIVE)), "a.pptx": samples.pptx()}))
    assert [page.strip() for page in found["a.pdf"].split("\f")] == [BOILER, "", ARCHIVE]
    assert found["a.pptx"].split("\f") == [
        f"Boilers\n\n{BOILER}",
        f"Archive\n\n{ARCHIVE}\n\nPump | 20,000\n\nSay thanks",
    ]


def test_word_keeps_the_order_of_paragraphs_and_tables(tmp_path: Path) -> None:
    found, _ = texts(write(tmp_path, {"a.docx": samples.docx()}))
    assert found["a.docx"] == f"Boilers\n\n{BOILER}\n\nPart | Hours\nPump | 20,000\n\n{ARCHIVE}"


def test_deleted_text_and_second_copies_of_text_boxes_are_left_out(tmp_path: Path) -> None:
    names = "xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main' xmlns:mc='urn:mc'"
    body = (
        f"<w:document {names}><w:body><w:sdt><w:sdtContent><w:p><w:r><w:t>Control</w:t></w:r></w:p></w:sdtContent>"
        "</w:sdt><w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:tab/>"
        "<w:t>new</w:t></w:r></w:ins></w:p><w:p><w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>box"
        "</w:t></w:r></w:p></w:txbxContent></mc:Choice><mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p></w:body></w:document>"
    )
    made = write(tmp_path / "made", {"a.docx": samples.docx()}) / "a.docx"
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    found, _ = texts(
        write(tmp_path / "in", {"a.docx": samples.archive({**members, "word/document.xml": body.encode()})})
    )
    assert found["a.docx"] == "Control\n\nkept\tnew\n\nbox"


def test_chapters_of_a_book_are_documents_in_the_order_of_reading(tmp_path: Path) -> None:
    found, _ = texts(write(tmp_path, {"a.epub": samples.epub()}))
    assert list(found) == ["a.epub!OEBPS/one.xhtml", "a.epub!OEBPS/two .xhtml"]
    assert BOILER in found["a.epub!OEBPS/one.xhtml"]
    assert PUMP in found["a.epub!OEBPS/two .xhtml"]


def test_a_mail_has_its_headers_its_body_and_its_attachments(tmp_path: Path) -> None:
    found, reasons = texts(write(tmp_path, {"a.eml": samples.eml()}))
    assert reasons == {}
    assert found["a.eml"] == (
        "From: Zoë <zoe@example.org>\nTo: ops@example.org\nSubject: Boiler – report\n"
        f"Date: Mon, 04 May 2026 10:00:00 +0000\n\n{BOILER}\nFrom now on, {PUMP}"
    )
    assert found["a.eml!note.txt"] == ARCHIVE
    assert [page.strip() for page in found["a.eml!report.pdf"].split("\f")] == [BOILER, ARCHIVE]


def test_a_mail_in_html_alone_and_one_inside_another(tmp_path: Path) -> None:
    inner, outer = samples.message("Inner", attach=False), EmailMessage()
    outer["From"], outer["Message-ID"] = "a@example.org", "<2@example.org>"
    outer.set_content(f"<p>{BOILER}</p>", subtype="html")
    outer.add_attachment(inner)
    found, reasons = texts(write(tmp_path, {"a.eml": outer.as_bytes()}))
    assert reasons == {}
    assert found["a.eml"].split("\n\n") == ["From: a@example.org", BOILER]
    assert "Subject: Inner" in found["a.eml!part-2.eml"]


def test_messages_of_a_mailbox_are_numbered(tmp_path: Path) -> None:
    found, reasons = texts(write(tmp_path / "in", {"a.mbox": samples.mbox(tmp_path)}))
    assert reasons == {}
    assert list(found) == ["a.mbox#1", "a.mbox#2", "a.mbox#2!report.pdf", "a.mbox#2!note.txt", "a.mbox#3"]
    for number in (1, 2, 3):  # "From now on" at the start of a line is no new message
        assert f"Subject: Number {number}" in found[f"a.mbox#{number}"]
        assert found[f"a.mbox#{number}"].endswith(f"{BOILER}\nFrom now on, {PUMP}")


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "|"), ("a.tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_text(tmp_path: Path, name: str, delimiter: str, encoding: str) -> None:
    found, reasons = texts(write(tmp_path, {name: samples.table(delimiter, encoding)}))
    assert reasons == {}
    assert list(found) == [f"{name}#{number}" for number in (2, 3, 4)]
    for text, row in zip(found.values(), ROWS, strict=True):
        assert text == "\n".join(f"{column}: {value}" for column, value in row.items())


def test_rows_become_documents_through_the_template(tmp_path: Path) -> None:
    files = {"a.csv": samples.table(), "a.xlsx": samples.xlsx(), "a.parquet": samples.parquet()}
    found, reasons = documents(write(tmp_path, files), **{"keep": ["price"]})
    assert reasons == {}
    assert found["a.csv#2"].kept == [{"price": "0.50"}]
    assert found["a.xlsx!Parts#2"].kept == [{"price": 0.5}]
    assert found["a.xlsx!Parts#4"].text == "name: Größe\nprice: 7\nnote: ends; here"
    assert found["a.parquet#1"].uri == "data/s/a.parquet#1"


def template(place: Path, text: str | None, keep: list[str]) -> dict[str, str]:
    from lib.sources import folder
    from tests.sources.folders import source

    chosen = source(keep=keep).model_copy(update={"text": text})
    return {document.id: document.text for document, _ in folder.read(place, "s", chosen, 1)}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_column_that_does_not_exist_is_one_clear_message(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: samples.table() if name == "a.csv" else samples.parquet()})
    assert template(tmp_path, "{name}!", ["note"])[f"s/{name}#{2 if name == 'a.csv' else 1}"] == "Bolt!"
    with pytest.raises(
        SmeltError, match=rf"{name} has no column 'body', which sources\.s\.text .* it has: name, price"
    ):
        template(tmp_path, "{name} {body}", [])
    with pytest.raises(SmeltError, match=r"no column 'title', which sources\.s\.keep"):
        template(tmp_path, None, ["title"])


def test_a_field_text_is_taken_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": b"id,text\n1,one\n", "b.json": b'{"text": "two", "x": 1}', "c.json": b'[{"x": 1}, "s"]'})
    assert template(tmp_path, None, []) == {
        "s/a.csv#2": "one",
        "s/b.json": "two",
        "s/c.json#1": "x: 1",
        "s/c.json#2": "s",
    }


def test_ragged_rows_and_odd_headers(tmp_path: Path) -> None:
    found, reasons = texts(write(tmp_path, {"a.csv": b"x,,x\n1,2,3\n\n4\n5,6,7,8\n"}))
    assert found == {"a.csv#2": "x: 1\ncolumn 2: 2\nx 2: 3", "a.csv#3": "x: 4"}
    assert reasons == {"a.csv#4": "more_cells_than_columns"}


def test_values_of_parquet_have_a_plain_form(tmp_path: Path) -> None:
    row = {
        "day": datetime.date(2026, 5, 4),
        "at": datetime.datetime(2026, 5, 4, 10, 30),
        "sum": decimal.Decimal("1.50"),
        "raw": b"caf\xc3\xa9",
        "tags": ["a", "b"],
        "none": None,
        "whole": 3.0,
    }
    data = samples.buffered(lambda stream: pq.write_table(pa.Table.from_pylist([row]), stream))
    found, _ = texts(write(tmp_path, {"a.parquet": data}))
    assert found["a.parquet#1"].split("\n") == [
        "day: 2026-05-04",
        "at: 2026-05-04T10:30:00",
        "sum: 1.50",
        "raw: café",
        "tags: a, b",
        "whole: 3",
    ]


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    found, _ = texts(write(tmp_path, {"a.json": samples.json_lines()}))
    assert found == {"a.json#1": BOILER, "a.json#2": ARCHIVE}


def test_places_inside_archives(tmp_path: Path) -> None:
    inner = samples.archive({"sub/c.txt": b"deep", "sub/.hidden": b"x", "__MACOSX/c.txt": b"x"})
    packed = samples.gzipped(samples.archive({"x/b.zip": inner, "t.jsonl": samples.json_lines(), "p.jpg": b"\xff\xd8"}))
    found, reasons = texts(write(tmp_path, {"a.zip.gz": packed}))
    assert found == {
        "a.zip.gz!x/b.zip!sub/c.txt": "deep",
        "a.zip.gz!t.jsonl#1": BOILER,
        "a.zip.gz!t.jsonl#2": ARCHIVE,
    }
    assert reasons == {"a.zip.gz!p.jpg": "unknown_file_type"}


def test_members_of_one_name_stay_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.txt", "two")
    found, _ = texts(tmp_path)
    assert found == {"a.zip!a.txt": "one", "a.zip!a.txt~2": "two"}


def test_limits_of_archives(tmp_path: Path) -> None:
    nested = b"deep"
    for depth in range(5):
        nested = samples.archive({f"{depth}.{'zip' if depth else 'txt'}": nested})
    million = b"word " * 200_000
    files = {
        "deep.zip": nested,
        "bomb.zip": samples.archive({f"{number}.txt": million for number in range(6)}),
        "big.txt.gz": samples.gzipped(million * 2),
        "lines.jsonl.gz": samples.gzipped(json.dumps({"text": "x" * 1000}).encode() + b"\n" + b"y" * 2_000_000),
    }
    found, reasons = texts(write(tmp_path, files), limits=SMALL)
    assert list(found) == [*(f"bomb.zip!{number}.txt" for number in range(3)), "lines.jsonl.gz#1"]
    assert reasons == {
        **{f"bomb.zip!{number}.txt": "unpacks_too_large" for number in (3, 4, 5)},
        "big.txt.gz": "too_large",
        "deep.zip!4.zip!3.zip!2.zip": "nested_too_deep",
        "lines.jsonl.gz#2": "too_large",
    }


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    whole = samples.archive({"a.txt": b"words " * 100})
    damaged = whole.replace(b"a.txt", b"a.tx\xff", 1)
    files = {
        "secret.pdf": samples.pdf(password="x"),
        "scan.pdf": samples.pdf(("",)),
        "cut.pdf": samples.pdf()[:300],
        "cut.docx": samples.docx()[:2000],
        "cut.txt.gz": samples.gzipped(b"words " * 10_000)[:60],
        "empty.zip": samples.archive({}),
        "damaged.zip": damaged,
        "blank.html": b"<!doctype html><html><body></body></html>",
        "empty.csv": b"a,b\n",
        "bad.json": b'{"a": ',
        "deep.json": b"[" * 100_000,
        "tar.txt": b"a.txt".ljust(257, b"\0") + b"ustar\x0000" + b"text " * 1000,
        "entity.svg": b'<?xml version="1.0"?><svg/>',
    }
    found, reasons = texts(write(tmp_path, files))
    assert found == {}
    assert reasons == {
        "secret.pdf": "encrypted",
        "scan.pdf": "no_text_in_pdf",
        "cut.pdf": "broken_pdf",
        "cut.docx": "broken_archive",
        "cut.txt.gz": "broken_archive",
        "empty.zip": "empty",
        "damaged.zip!a.txt": "broken_archive",
        "blank.html": "no_text_in_html",
        "empty.csv": "empty",
        "bad.json": "broken_json",
        "deep.json": "broken_json",
        "tar.txt": "unknown_file_type",
        "entity.svg": "unknown_file_type",
    }
