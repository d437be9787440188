"""Reading a folder of made files as the stage does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.params.sources import FolderSource
from lib.sources import folder
from lib.text.documents import Document
from tests.text import project

SMALL = {"seconds": 10, "memory_mib": 512, "document_mib": 1, "unpacked_mib": 4, "depth": 3}


def source(**changes: Any) -> FolderSource:
    return FolderSource(**project.folder("s", text=None, **changes))


def write(place: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def documents(place: Path, **changes: Any) -> tuple[dict[str, Document], dict[str, str]]:
    """Documents and reasons of the rejects, both by the place in the folder."""
    items = list(folder.read(place, "s", source(**changes), workers=1))
    assert len({document.id for document, _ in items}) == len(items)
    found = {document.id.removeprefix("s/"): document for document, reason in items if reason is None}
    return found, {document.id.removeprefix("s/"): reason for document, reason in items if reason is not None}


def texts(place: Path, **changes: Any) -> tuple[dict[str, str], dict[str, str]]:
    found, reasons = documents(place, **changes)
    return {name: document.text for name, document in found.items()}, reasons
