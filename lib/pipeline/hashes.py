"""Content hashes of files, folders and values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def _files(folder: Path) -> list[Path]:
    """The files that .dvcignore does not leave out, in a fixed order."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".whl")
    )


def hash_file(path: Path) -> str:
    """sha256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_path(path: Path) -> str:
    """sha256 of a file's content, or of the names and contents of the files below a folder."""
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.relative_to(path)} {hash_file(file)}\n".encode())
    return digest.hexdigest()


def hash_value(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
