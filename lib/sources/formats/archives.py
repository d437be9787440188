"""What lies inside zip archives and e-books, as contents of their own. Nothing is written to disk."""

from __future__ import annotations

import posixpath
import re
import stat
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from lib.sources.content import Content, Rejected, unique

Member = tuple[str, Content | Rejected]  # its name inside, and itself or why it cannot be had
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, KeyError, IndexError)


def _open(content: Content) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(content.open_seekable())
    except _BROKEN:
        raise Rejected("broken_archive") from None


def _member(content: Content, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Content | Rejected:
    if info.flag_bits & 1:
        return Rejected("encrypted")
    if stat.S_ISLNK(info.external_attr >> 16):
        return Rejected("link_in_an_archive")
    return content.unpacked(posixpath.basename(info.filename), lambda: archive.open(info))  # type: ignore[arg-type]


def _hidden(name: str) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part.strip(".") != "") for part in name.split("/"))


def zip_members(content: Content) -> Iterator[Member]:
    """Every file in a zip archive, in its order, hidden ones aside. Of two with one name the second is `name~2`.

    Raises:
        Rejected: `broken_archive`, or `too_large` to be looked into where it lies in another archive.
    """
    with _open(content) as archive:
        taken: set[str] = set()
        for info in archive.infolist():
            if info.is_dir() or _hidden(info.filename):
                continue
            yield unique(info.filename, taken), _member(content, archive, info)


def epub_chapters(content: Content) -> Iterator[Member]:
    """The chapters of an e-book in the order of reading (EPUB 2 and 3: container.xml names the package document, whose
    spine lists them).

    Raises:
        Rejected: `broken_epub`; `encrypted` if it has copy protection.
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)

    def xml(archive: zipfile.ZipFile, name: str) -> etree._Element:
        if archive.getinfo(name).file_size > content.budget.document:
            raise Rejected("too_large")
        tree = etree.fromstring(archive.read(name), parser)
        if tree is None:
            raise Rejected("broken_epub")
        return tree

    with _open(content) as archive:
        try:
            names = set(archive.namelist())
            if "META-INF/encryption.xml" in names and "META-INF/rights.xml" in names:
                raise Rejected("encrypted")
            path = xml(archive, "META-INF/container.xml").xpath("string(//*[local-name()='rootfile']/@full-path)")
            package = xml(archive, path)
            items = {item.get("id"): item.get("href") for item in package.xpath("//*[local-name()='item']")}
            spine = [items.get(entry.get("idref")) for entry in package.xpath("//*[local-name()='itemref']")]
        except (*_BROKEN, RuntimeError, etree.LxmlError):
            raise Rejected("broken_epub") from None
        chapters = []
        for href in spine:
            name = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(re.sub("#.*", "", href or ""))))
            if href and name not in chapters:
                chapters.append(name)
        if not chapters:
            raise Rejected("broken_epub")
        for name in chapters:
            found = _member(content, archive, archive.getinfo(name)) if name in names else Rejected("missing_member")
            yield name, found
