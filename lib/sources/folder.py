"""Documents from a folder of one's own: txt, md, html and jsonl files, at any depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lib.params.sources import FolderSource
from lib.pipeline.errors import SmeltError
from lib.sources import html, plain, records
from lib.sources.records import Item
from lib.text.documents import Document


def files(folder: Path) -> list[Path]:
    """The files below `folder` in order of their names, hidden ones aside.

    Raises:
        SmeltError: with every file and folder that the system does not let one read. What cannot be read cannot be
            counted either, and a result without it would pass for the whole.
    """
    found: list[Path] = []
    unreadable: list[str] = []

    def refused(error: OSError) -> None:
        unreadable.append(f"  {error.filename}: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        for path in (Path(parent) / name for name in [*names, *linked] if not name.startswith(".")):
            try:
                if not path.is_dir():
                    path.open("rb").close()
                found.append(path)
            except OSError as error:
                refused(error)
    if unreadable:
        listed = "\n".join(sorted(unreadable))
        raise SmeltError(
            f"cannot read everything in {folder.name}; make it readable (chmod u+r) or remove it:\n{listed}"
        )
    return sorted(found)


def read(folder: Path, name: str, source: FolderSource) -> Iterator[Item]:
    """The documents of source `name`, each with the reason why it is rejected, or None.

    Raises:
        SmeltError: a file cannot be read at all.
    """
    for path in files(folder):
        yield from _documents(path, folder, name, source)


def _documents(path: Path, folder: Path, name: str, source: FolderSource) -> Iterator[Item]:
    inside = path.relative_to(folder).as_posix()
    place = Document(f"{name}/{inside}", "", f"{source.input}/{inside}", name, source.licence)
    extension = path.suffix.lower()
    if not path.resolve().is_relative_to(folder.resolve()):
        yield place, "link_out_of_the_folder"
    elif path.is_dir():
        return  # a link to a folder that is read anyway
    elif extension not in (".txt", ".md", ".html", ".htm", ".jsonl"):
        yield place, "unknown_file_type"
    elif extension in (".html", ".htm"):
        text = html.extract(path.read_bytes())
        yield (place._replace(text=text), None) if text else (place, "no_text_in_html")
    else:
        try:
            text = plain.decode(path.read_bytes())
        except UnicodeDecodeError:
            yield place, "not_utf8"
            return
        if extension == ".jsonl":
            for record in records.read_json_lines(text):
                at = place._replace(id=f"{place.id}#{record.number}", uri=f"{place.uri}#{record.number}")
                yield records.to_item(record, at, source.text, source.keep)
        else:
            yield (place._replace(text=text), None) if text.strip() else (place, "empty")
