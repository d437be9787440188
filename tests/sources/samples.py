"""One small file of each kind, written by libraries that Smelt does not read with, from texts that are known."""

from __future__ import annotations

import csv
import gzip
import io
import json
import mailbox
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import docx as python_docx
import pptx as python_pptx
import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter
from pptx.util import Inches
from reportlab.pdfgen.canvas import Canvas

BOILER = "The boiler is inspected twice a year by a certified engineer, who writes a report about it."
ARCHIVE = "Reports are kept for ten years in the archive on the third floor, as the law asks."
PUMP = "The pump on the roof is replaced when it has run for twenty thousand hours."
ROWS = [
    {"name": "Bolt", "price": "0.50", "note": 'M8, "zinc"'},
    {"name": "Nut", "price": "0.20", "note": "two\nlines"},
    {"name": "Größe", "price": "7", "note": "ends; here"},
]


def buffered(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def html() -> bytes:
    return (
        "<!DOCTYPE html><html><head><meta charset='utf-8'><title>T</title></head><body><nav><a href='/'>Home</a></nav>"
        f"<article><h1>Boilers</h1><p>{BOILER}</p><p>{ARCHIVE}</p></article><footer>Imprint</footer></body></html>"
    ).encode()


def pdf(pages: tuple[str, ...] = (BOILER, ARCHIVE), password: str | None = None) -> bytes:
    def write(stream: io.BytesIO) -> None:
        canvas = Canvas(stream, invariant=1, encrypt=password)
        for page in pages:
            canvas.drawString(40, 700, page)
            canvas.showPage()
        canvas.save()

    return buffered(write)


def docx() -> bytes:
    document = python_docx.Document()
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.add_heading("Boilers", 1)
    paragraph = document.add_paragraph("The boiler is inspected ")
    paragraph.add_run("twice a year").bold = True
    paragraph.add_run(" by a certified engineer, who writes a report about it.")
    table = document.add_table(2, 2)
    cells = [cell for row in table.rows for cell in row.cells]
    for cell, text in zip(cells, ["Part", "Hours", "Pump", "20,000"], strict=True):
        cell.text = text
    document.add_paragraph(ARCHIVE)
    return buffered(document.save)


def pptx() -> bytes:
    presentation = python_pptx.Presentation()
    for title, body in (("Boilers", BOILER), ("Archive", ARCHIVE)):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
    slide.notes_slide.notes_text_frame.text = "Say thanks"
    table = slide.shapes.add_table(1, 2, Inches(1), Inches(5), Inches(4), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "Pump", "20,000"
    return buffered(presentation.save)


def xlsx() -> bytes:
    def write(stream: io.BytesIO) -> None:
        with xlsxwriter.Workbook(stream, {"in_memory": True}) as workbook:
            sheet = workbook.add_worksheet("Parts")
            sheet.write_row(0, 0, list(ROWS[0]))
            for number, row in enumerate(ROWS, start=1):
                sheet.write_row(number, 0, [row["name"], float(row["price"]), row["note"]])
            workbook.add_worksheet("Empty")

    return buffered(write)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w", method) as file:
            for name, data in members.items():
                file.writestr(zipfile.ZipInfo(name), data, method)

    return buffered(write)


def epub() -> bytes:
    def chapter(title: str, *paragraphs: str) -> bytes:
        body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
        return (
            f"<?xml version='1.0' encoding='utf-8'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title>{title}"
            f"</title></head><body><h1>{title}</h1>{body}</body></html>"
        ).encode()

    container = b"""<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>
        <rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
    package = b"""<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>
        <item id="b" href="two%20.xhtml" media-type="application/xhtml+xml"/><item id="css" href="s.css"/>
        <item id="a" href="one.xhtml" media-type="application/xhtml+xml"/></manifest>
        <spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
    return archive(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/content.opf": package,
            "OEBPS/two .xhtml": chapter("Archive", ARCHIVE, PUMP),
            "OEBPS/one.xhtml": chapter("Boilers", BOILER, PUMP),
            "OEBPS/s.css": b"p { margin: 0 }",
        }
    )


def message(subject: str = "Boiler – report", attach: bool = True) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Zoë <zoe@example.org>", "ops@example.org", subject
    mail["Date"], mail["Message-ID"] = "Mon, 04 May 2026 10:00:00 +0000", "<1@example.org>"
    mail.set_content(f"{BOILER}\nFrom now on, {PUMP}")
    if attach:
        mail.add_alternative("<p>the same in HTML</p>", subtype="html")
        mail.add_attachment(pdf(), maintype="application", subtype="pdf", filename="report.pdf")
        mail.add_attachment(ARCHIVE.encode("cp1252"), maintype="text", subtype="plain", filename="note.txt")
    return mail


def eml() -> bytes:
    return message().as_bytes()


def mbox(folder: Path) -> bytes:
    path = folder / "made.mbox"
    box = mailbox.mbox(path, create=True)
    for number in (1, 2, 3):
        entry = mailbox.mboxMessage(message(f"Number {number}", attach=number == 2))
        entry.set_from("zoe@example.org", (2026, 5, 4, 10, 0, 0, 0, 1, 0))
        box.add(entry)
    box.close()
    data = path.read_bytes()
    path.unlink()
    return data


def table(delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode(encoding)


def json_lines() -> bytes:
    return "".join(json.dumps({"text": text, "title": "T"}) + "\n" for text in (BOILER, ARCHIVE)).encode()


def parquet() -> bytes:
    return buffered(lambda stream: pq.write_table(pa.Table.from_pylist([{**row, "n": 1} for row in ROWS]), stream))


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def every_kind(folder: Path) -> dict[str, bytes]:
    """One file of each kind that params.yaml lists, by name."""
    text = f"{BOILER}\n\n{ARCHIVE}\n".encode()
    return {
        "a.txt": text,
        "a.md": b"# Boilers\n\n" + text,
        "a.rst": b"Boilers\n=======\n\n" + text,
        "a.html": html(),
        "a.pdf": pdf(),
        "a.docx": docx(),
        "a.pptx": pptx(),
        "a.xlsx": xlsx(),
        "a.epub": epub(),
        "a.eml": eml(),
        "a.mbox": mbox(folder),
        "a.csv": table(),
        "a.tsv": table("\t"),
        "a.json": json.dumps(ROWS).encode(),
        "a.jsonl": json_lines(),
        "a.parquet": parquet(),
        "b.txt.gz": gzipped(text),
        "b.jsonl.zst": zstd(json_lines()),
        "b.zip": archive({"in/a.txt": text, "a.pdf": pdf(), "b.zip": archive({"c.html": html()})}),
    }
