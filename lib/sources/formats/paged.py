"""Text of PDF, Word and PowerPoint files. Pages and slides are divided by a form feed.

Word and PowerPoint files are zip archives of XML (Office Open XML, ECMA-376). The elements that hold text are few, and
are taken here by their local names, in the order of the document: content controls and text boxes included, deleted
text not.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator

from lxml import etree

from lib.sources.content import Content, Rejected

PAGE_BREAK = "\f"
_HYPHEN = re.compile("\ufffe(?=[a-z\xdf-\xff])")  # PDFium's sign of a hyphen that ended a line inside a word
_MARKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# Deleted or moved away; properties; and the same text box once more, for older readers.
_SKIPPED = {"del", "moveFrom", "pPr", "rPr", "tblPr", "instrText", "Fallback"}
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


def pdf(content: Content) -> str:
    """The text of each page, read with PDFium.

    Raises:
        Rejected: `encrypted`, `broken_pdf`, or `no_text_in_pdf`: scanned pages.
    """
    import pypdfium2

    with content.open_seekable() as stream:
        try:
            document = pypdfium2.PdfDocument(stream)
        except pypdfium2.PdfiumError as error:
            raise Rejected("encrypted" if "password" in str(error).lower() else "broken_pdf") from None
        try:
            pages = [_pdf_page(page) for page in document]
        finally:
            document.close()
    if not any(page.strip() for page in pages):
        raise Rejected("no_text_in_pdf")
    return PAGE_BREAK.join(pages)


def _pdf_page(page) -> str:
    text = page.get_textpage()
    try:
        return _HYPHEN.sub("", text.get_text_range().replace("\r\n", "\n")).replace("\ufffe", "-")
    finally:
        text.close()
        page.close()


class _Office:
    """The parts of an Office Open XML file, and the relations between them."""

    def __init__(self, archive: zipfile.ZipFile, limit: int) -> None:
        self._archive, self._limit = archive, limit
        self._parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)

    def xml(self, name: str) -> etree._Element:
        if self._archive.getinfo(name).file_size > self._limit:
            raise Rejected("too_large")
        return etree.fromstring(self._archive.read(name), self._parser)

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """What a part refers to by id: the last word of the kind of relation, and the other part's name."""
        folder, file = posixpath.split(name)
        try:
            root = self.xml(posixpath.join(folder, "_rels", f"{file}.rels"))
        except KeyError:
            return {}
        return {
            entry.get("Id"): (
                entry.get("Type", "").rpartition("/")[2],
                posixpath.normpath(posixpath.join("/", folder, entry.get("Target", ""))).lstrip("/"),
            )
            for entry in root
            if entry.get("TargetMode") != "External"
        }

    def related(self, name: str, kind: str) -> list[str]:
        return [target for type_, target in self.relations(name).values() if type_ == kind]


def _local(element: etree._Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""  # a comment has none


def _text(element: etree._Element) -> str:
    pieces = []
    for child in element:
        name = _local(child)
        if name == "t":
            pieces.append(child.text or "")
        elif name in _MARKS:
            pieces.append(_MARKS[name])
        elif name == "p":  # of a text box
            pieces.append(f"\n{_text(child)}\n")
        elif name not in _SKIPPED:
            pieces.append(_text(child))
    return "".join(pieces)


def _blocks(element: etree._Element) -> Iterator[str]:
    """Paragraphs, and tables a row a line with bars between the cells."""
    for child in element:
        name = _local(child)
        if name == "p":
            yield _text(child)
        elif name == "tbl":
            rows = (row for row in child.iter("{*}tr") if next(row.iterancestors("{*}tbl")) is child)
            yield "\n".join(" | ".join(_cell(cell) for cell in row if _local(cell) == "tc") for row in rows)
        elif name not in _SKIPPED:
            yield from _blocks(child)


def _cell(cell: etree._Element) -> str:
    return " ".join(" ".join(_blocks(cell)).split())


def _paragraphs(element: etree._Element) -> str:
    return "\n\n".join(text for block in _blocks(element) if (text := block.strip("\n")).strip())


def docx(content: Content) -> str:
    """The body of a Word file, then its footnotes and endnotes. Headers and footers repeat, and are left out."""
    with zipfile.ZipFile(content.open_seekable()) as archive:
        office = _Office(archive, content.budget.document)
        (main,) = office.related("", "officeDocument")
        notes = [part for kind in ("footnotes", "endnotes") for part in office.related(main, kind)]
        return "\n\n".join(text for part in (main, *notes) if (text := _paragraphs(office.xml(part))))


def pptx(content: Content) -> str:
    """The slides of a presentation in their order, each with its speaker's notes."""
    with zipfile.ZipFile(content.open_seekable()) as archive:
        office = _Office(archive, content.budget.document)
        (main,) = office.related("", "officeDocument")
        relations = office.relations(main)
        slides = [relations[entry.get(_RELATION)][1] for entry in office.xml(main).iter("{*}sldId")]
        pages = []
        for slide in slides:
            notes = office.related(slide, "notesSlide")
            shown = [_paragraphs(office.xml(part).find("{*}cSld")) for part in (slide, *notes)]
            pages.append("\n\n".join(text for text in shown if text))
        return PAGE_BREAK.join(pages)
