"""Documents from a folder of one's own, at any depth. What a file holds is the matter of `parts`."""

from __future__ import annotations

import functools
import heapq
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib.params.sources import FolderSource
from lib.pipeline.errors import SmeltError
from lib.sources import parts
from lib.sources import workers as pool
from lib.sources.records import Item
from lib.sources.workers import Found
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
                if stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
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


def read(folder: Path, name: str, source: FolderSource, workers: int) -> Iterator[Item]:
    """The documents of source `name`, each with the reason why it is rejected or None, in the order of the files.

    Raises:
        SmeltError: a file cannot be read at all, or a table lacks a column that the source names.
    """
    return (item for _, item in read_files(files(folder), folder, name, source, workers))


def read_files(
    paths: Iterable[Path], folder: Path, name: str, source: FolderSource, workers: int
) -> Iterator[tuple[Path, Item]]:
    """The documents of the files `paths` below `folder`, each with its file: as `read`, which takes all of them."""
    order: dict[Path, int] = {}
    refused: dict[Path, str] = {}
    for path in paths:
        if reason := refusal(path, folder):
            refused[path] = reason
        elif path.is_dir():
            continue  # a link to a folder that is read anyway
        order[path] = len(order)
    parser = functools.partial(parts.parse, parts.Columns(name, source.text, source.keep), source.limits)
    found = heapq.merge(
        ((path, Found("", "", reason=reason)) for path, reason in refused.items()),
        pool.read([path for path in order if path not in refused], parser, source.limits, workers),
        key=lambda entry: order[entry[0]],
    )
    for path, (at, text, kept, reason) in found:
        # A name may be any bytes but "/"; those that are no UTF-8 are written as \\xff.
        place = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace") + at
        yield path, (Document(f"{name}/{place}", text, f"{source.input}/{place}", name, source.licence, kept), reason)


def refusal(path: Path, folder: Path) -> str | None:
    """Why a file is not even opened; None: it is."""
    if not path.resolve().is_relative_to(folder.resolve()):
        return "link_out_of_the_folder"
    return None if path.is_file() or path.is_dir() else "not_a_regular_file"
