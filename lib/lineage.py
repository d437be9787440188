"""Where an exported model comes from: `python -m lib.lineage MODEL`, a file or folder of models/export.

What the file says of itself (fingerprints, sources, parameters) is read from its metadata. The rest is looked up by its
bytes, so that a renamed copy is found too: every dvc.lock in git's history names the md5 of the export folder, whose
list of files is in DVC's cache. That dvc.lock names the inputs of every stage, and so leads back to the documents.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from lib.export.lineage import Lineage, read
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_value
from lib.text.documents import read_table

MIX = "data/mix"
SPLITS = ("train", "val", "test")
# How DVC writes an output folder into dvc.lock; finds the few locks worth parsing.
_EXPORTED = re.compile(r"path: (models/export/\S+)\s+hash: md5\s+md5: ([0-9a-f]{32}\.dir)")


# ----------------------------------------------------------------------------------------------------------------------
# DVC's hashes


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def list_folder(folder: Path) -> dict[str, str]:
    """md5 by path of the files below `folder`."""
    return {path.relative_to(folder).as_posix(): _digest(path, "md5") for path in folder.rglob("*") if path.is_file()}


def hash_listing(listing: dict[str, str]) -> str:
    """DVC's hash of a folder: md5 of the sorted list of its files, as JSON."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(listing.items())]
    return hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir"


class Folders:
    """The files of a folder that DVC recorded, by the folder's hash: from the cache, else from models/export itself."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, md5: str) -> dict[str, str]:
        """md5 by path; empty if neither the cache nor the workspace has that folder."""
        path = self._cache / md5[:2] / md5[2:]
        if path.is_file():
            return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}
        return self._workspace.get(md5, {})

    @functools.cached_property
    def _cache(self) -> Path:
        command = [sys.executable, "-m", "dvc", "cache", "dir"]  # local and global settings may move it
        found = subprocess.run(command, cwd=self._root, capture_output=True, text=True)
        return Path(found.stdout.strip() or self._root / ".dvc/cache") / "files/md5"

    @functools.cached_property
    def _workspace(self) -> dict[str, dict[str, str]]:
        listings = [list_folder(folder) for folder in self._root.glob("models/export/*") if folder.is_dir()]
        return {hash_listing(listing): listing for listing in listings}


# ----------------------------------------------------------------------------------------------------------------------
# dvc.lock


@dataclass(frozen=True)
class Lock:
    """One version of dvc.lock."""

    commit: str | None  # null: the working tree's, in no commit yet
    title: str  # date and subject
    text: str

    @functools.cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        return YAML(typ="safe").load(self.text)["stages"]


def locks(root: Path) -> Iterator[Lock]:
    """Every committed dvc.lock, of all branches and experiments, oldest first, then the working tree's."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout

    history = git("log", "--all", "--reverse", "--format=%H%x09%cs %s", "--", "dvc.lock")
    for line in history.splitlines():
        commit, _, title = line.partition("\t")
        yield Lock(commit, title, git("show", f"{commit}:./dvc.lock"))
    if (root / "dvc.lock").is_file():
        yield Lock(None, "the dvc.lock of the working tree, not committed yet", (root / "dvc.lock").read_text())


class Trace(NamedTuple):
    """The stages behind one output, by a dvc.lock."""

    stages: dict[str, dict[str, Any]]  # name -> cmd, deps, params, outs as in dvc.lock; upstream first
    stale: list[str]  # inputs that were made anew after the stage that read them had run


def trace(stages: dict[str, dict[str, Any]], output: str) -> Trace:
    """Walk from `output` through the deps of each stage to all that came before it."""
    makers = {out["path"]: (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])}
    found: dict[str, dict[str, Any]] = {}
    stale: list[str] = []

    def visit(name: str) -> None:
        if name in found:
            return
        for dep in stages[name].get("deps", []):
            path = dep["path"]
            # A stage may read a part of another's output: data/mix/train of data/mix.
            made = next((out for out in (path, *map(str, Path(path).parents)) if out in makers), None)
            if made is None:
                continue
            maker, md5 = makers[made]
            visit(maker)
            if made == path and md5 != dep["md5"]:
                stale.append(f"{path}, read by {name}")
        found[name] = stages[name]

    visit(makers[output][0])
    return Trace(found, stale)


class Origin(NamedTuple):
    """The dvc.lock that has a file, and what it says."""

    lock: Lock
    output: str  # models/export/gguf
    trace: Trace
    also: list[str]  # other commits that have the file


def find(root: Path, weights: Path) -> Origin | None:
    """The oldest dvc.lock that has the bytes of `weights`, of those whose stages fit together if there are any."""
    md5, folders = _digest(weights, "md5"), Folders(root)
    holders = [
        (lock, output)
        for lock in locks(root)
        for output, folder in _EXPORTED.findall(lock.text)
        if md5 in folders.listing(folder).values()
    ]
    holders = [holder for holder in holders if holder[0].commit] or holders
    oldest = None
    for lock, output in holders:
        also = [other.commit for other, _ in holders if other.commit and other is not lock]
        origin = Origin(lock, output, trace(lock.stages, output), also)
        if not origin.trace.stale:
            return origin
        oldest = oldest or origin
    return oldest


# ----------------------------------------------------------------------------------------------------------------------
# Documents


def check_documents(root: Path, origin: Origin) -> str | None:
    """None if data/mix is what the model was made from, else what to do to have it."""
    recorded = next(
        (out["md5"] for stage in origin.trace.stages.values() for out in stage["outs"] if out["path"] == MIX), None
    )
    if recorded is None:
        return f"that dvc.lock has no {MIX}"
    if (root / MIX).is_dir() and hash_listing(list_folder(root / MIX)) == recorded:
        return None
    before = f"git checkout {origin.lock.commit[:10]} dvc.lock && " if origin.lock.commit else ""
    fetch = "checkout" if Folders(root).listing(recorded) else "pull"
    return f"{MIX} is not the one that this model was made from; get it with `{before}dvc {fetch} {MIX}`"


def read_documents(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Split, source, licence and id of every document in data/mix."""
    for split in SPLITS:
        for batch in read_table(root / MIX / split, ["source", "licence", "id"]):
            for row in batch.to_pylist():
                yield split, row["source"], row["licence"], row["id"]


def count_documents(root: Path) -> dict[str, Any]:
    """How many documents data/mix has, in all, by split and by source, and the ids of the first three."""
    splits: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    first: list[str] = []
    for split, source, _, document in read_documents(root):
        splits[split] += 1
        sources[source] += 1
        if len(first) < 3:
            first.append(document)
    return {"total": splits.total(), "splits": dict(splits), "sources": dict(sources), "first": first}


def write_documents(root: Path, path: Path) -> None:
    """Write what `read_documents` gives as tab-separated lines under a heading."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, "excel-tab", lineterminator="\n")
        writer.writerow(["split", "source", "licence", "id"])
        writer.writerows(read_documents(root))
    partial.replace(path)


# ----------------------------------------------------------------------------------------------------------------------
# The report


def find_weights(model: Path) -> Path:
    """The file that holds the weights and the lineage: `model` itself, or the first one in the folder `model`.

    Raises:
        SmeltError: there is none.
    """
    if model.is_file():
        return model
    if not model.is_dir():
        raise SmeltError(f"{model} does not exist; exports are in models/export after `dvc repro`")
    # Of some formats the weights lie a folder below.
    inside = [file for kind in ("safetensors", "gguf", "onnx") for file in sorted(model.glob(f"**/*.{kind}"))]
    if not inside:
        raise SmeltError(f"{model} has no .gguf, .safetensors or .onnx file")
    return inside[0]


def describe(root: Path, model: Path) -> dict[str, Any]:
    """All that is known of an exported file, ready for JSON.

    Raises:
        SmeltError: it is not an export of Smelt, or not whole.
    """
    weights = find_weights(model)
    lineage: Lineage = read(weights)
    origin = find(root, weights)
    description: dict[str, Any] = {
        "file": str(weights),
        "bytes": weights.stat().st_size,
        "md5": _digest(weights, "md5"),
        "sha256": _digest(weights, "sha256"),
        "licence": lineage.licence,
        "fingerprints": lineage.fingerprints,
        "params_match_fingerprint": hash_value(lineage.params) == lineage.fingerprints["params"],
        "sources": lineage.sources,
        "params": lineage.params,
        "origin": None,
        "documents": None,
    }
    if origin:
        description["origin"] = {
            "commit": origin.lock.commit,
            "title": origin.lock.title,
            "also_in": origin.also,
            "output": origin.output,
            "stale": origin.trace.stale,
            "stages": origin.trace.stages,
        }
        missing = check_documents(root, origin)
        description["documents"] = {"missing": missing} if missing else count_documents(root)
    return description


def format_text(found: dict[str, Any]) -> str:
    """`describe`'s findings for a reader."""
    lines = [
        f"{found['file']}  {found['bytes']:,} bytes",
        f"  md5      {found['md5']}",
        f"  sha256   {found['sha256']}",
        f"  licence  {found['licence']}",
        "",
        "Fingerprints inside the file",
    ]
    lines += [f"  {name:7}  {value}" for name, value in found["fingerprints"].items()]
    if not found["params_match_fingerprint"]:
        lines.append("  WARNING: the parameters inside do not match their fingerprint: the file was edited")
    lines += ["", "Sources"]
    for name, source in found["sources"].items():
        count = source["documents"]
        what = "the model that it began with" if count is None else f"{count:,} training documents"
        lines.append(f"  {name}: {what}, {source['licence']}")
        if source["package"]:
            lines.append(f"    {source['package']}" + (f"  sha256 {source['sha256']}" if source["sha256"] else ""))
    return "\n".join([*lines, "", *(_format_origin(found) if found["origin"] else _format_without_origin(found))])


def _format_without_origin(found: dict[str, Any]) -> list[str]:
    lines = ["No dvc.lock of this repository has this file: it was made elsewhere, or is no longer in the history."]
    lines.append("Its parameters, as it tells them itself:")
    for stage, params in found["params"].items():
        lines += [f"  {stage}: {section} = {json.dumps(value)}" for section, value in params.items()]
    return lines


def _format_origin(found: dict[str, Any]) -> list[str]:
    origin, documents = found["origin"], found["documents"]
    commit = f"commit {origin['commit'][:10]}, {origin['title']}" if origin["commit"] else origin["title"]
    lines = [f"Recorded as {origin['output']} in {commit}"]
    if origin["also_in"]:
        lines.append(f"  and in {len(origin['also_in'])} more: {' '.join(commit[:10] for commit in origin['also_in'])}")
    lines += [f"  WARNING: made anew since: {problem}" for problem in origin["stale"]]
    lines += ["", "Made by"]
    for name, stage in origin["stages"].items():
        lines.append(f"  {name}: {stage['cmd']}")
        lines += [f"    {dep['md5']:36}  {dep['path']}" for dep in stage.get("deps", [])]
        for params in stage.get("params", {}).values():
            lines += [f"    {key} = {json.dumps(value)}" for key, value in params.items()]
    lines.append("")
    if "missing" in documents:
        return [*lines, f"Documents: {documents['missing']}"]
    splits = ", ".join(f"{split} {count:,}" for split, count in documents["splits"].items())
    lines.append(f"Documents: {documents['total']:,} in {MIX} ({splits})")
    lines += [f"  {source}: {count:,}" for source, count in documents["sources"].items()]
    lines.append(f"  first: {', '.join(documents['first'])}")
    return [*lines, f"  all: python -m lib.lineage {found['file']} --documents documents.tsv"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.lineage", description="Where an exported model comes from.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file or folder of models/export, or a copy of one")
    parser.add_argument("--documents", type=Path, metavar="FILE", help="write the ids of all its documents to FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    root = Path.cwd()
    try:
        found = describe(root, arguments.model)
        if arguments.documents:
            if not found["documents"] or "missing" in found["documents"]:
                reason = (found["documents"] or {}).get("missing", "no dvc.lock of this repository has this file")
                raise SmeltError(f"its documents are not known: {reason}")
            write_documents(root, arguments.documents)
    except (SmeltError, OSError) as error:
        sys.exit(f"lineage: error: {error}")
    print(json.dumps(found, indent=2) if arguments.json else format_text(found))
    if arguments.documents:
        print(f"wrote {found['documents']['total']:,} documents to {arguments.documents}", file=sys.stderr)


if __name__ == "__main__":
    main()
