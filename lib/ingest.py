"""Bring the index up to date with the folders of your documents, without the rest of the line: `make ingest`.

What was added, changed or removed in the folders of `index.sources` is read, cleaned by the source's own rules
(personal data is redacted as ever) and put into models/index; nothing else is touched, and no model is trained. The
first time after `make repro` every file is read, and only documents that are new are cleaned and embedded; later on
only files whose size or time changed are looked at.

Each group of files is one transaction: killed at any moment, the index is as usable as before, and the same command
goes on from there. Servers notice by themselves. Duplicates across sources stay, and so do documents of an evaluation
set: what looks for those is `dedup`, in the line. The next `make repro` makes the index anew, from all documents.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lib.params import load as parameters
from lib.params.load import Params
from lib.params.sources import FolderSource
from lib.pipeline.errors import MENDABLE, SmeltError, explain
from lib.pipeline.hashes import hash_text
from lib.pipeline.run import exclusive
from lib.rag.build import Embedded, embed, make_chunker, settings_of
from lib.rag.embed import Embedder, check_same, load_embedder
from lib.rag.index import File, Index, Indexed
from lib.sources import folder
from lib.text.cleaning import clean_shard
from lib.text.documents import Document, read_documents, read_table, shards, write_documents
from lib.text.pii.redact import Finder, PiiBlock

INDEX = Path("models/index")
SCRATCH = Path(".scratch")
_GROUP_FILES = 256  # of one transaction,
_GROUP_BYTES = 8 * 2**20  # or fewer, of so much


class _Found(NamedTuple):
    place: str  # inside the source's folder
    path: Path
    file: File


class Ingest:
    """Brings one source of `index` up to date.

    Args:
        load: loads the embedder, where something has to be embedded.

    Attributes:
        counts: how many documents were added, changed, removed, unchanged and rejected.
        reasons: why those were rejected.

    Raises:
        SmeltError: the source is no folder, or not a whole part of this index.
    """

    def __init__(self, root: Path, params: Params, name: str, index: Index, load: Callable[[], Embedder]) -> None:
        indexed, source = settings_of(index).sources, params.sources.get(name)
        if not isinstance(source, FolderSource):
            raise SmeltError(f"params.yaml has no source {name!r} that is a folder; only those can be kept up to date")
        if name not in indexed:
            raise SmeltError(f"the index has no source {name}: add it to index.sources and run `dvc repro index`")
        if indexed[name] is not None:
            raise SmeltError(
                f"the index takes {indexed[name]:,} documents of {name} alone: set index.sources.{name} to null and "
                f"run `dvc repro index` to have it kept up to date"
            )
        if not (root / source.input).is_dir():
            raise SmeltError(f"{source.input}, the folder of source {name}, does not exist")
        self._root, self._params, self._index = root, params, index
        self._name, self._source = name, source
        self._folder, self._load = root / source.input, load
        self._pii: PiiBlock | None = None
        self._known = index.documents(name)
        self._by_file: dict[str, set[str]] = {}
        for document, one in self._known.items():
            if one.file is not None:
                self._by_file.setdefault(one.file, set()).add(document)
        self.counts: Counter[str] = Counter(added=0, changed=0, removed=0, unchanged=0, rejected=0)
        self.reasons: Counter[str] = Counter()

    def run(self, workers: int) -> None:
        """Read what changed, with so many processes, and change the index."""
        known = self._index.files(self._name)
        present = {self._place(path): path for path in folder.files(self._folder)}
        waiting: list[_Found] = []
        for place, path in present.items():
            if path.is_dir():  # a link to a folder that is read anyway
                continue
            status, before = path.stat(), known.get(place)
            if before is not None and (before.size, before.mtime) == (status.st_size, status.st_mtime_ns):
                self.counts["unchanged"] += len(self._by_file.get(place, ()))
            else:
                waiting.append(_Found(place, path, File(status.st_size, status.st_mtime_ns)))
        for group in _groups(waiting):
            self._take(group, workers)
        self._sweep(known.keys() - present.keys())

    def _take(self, group: list[_Found], workers: int) -> None:
        """Read a group of files and put what they hold into the index, as one change."""
        found: dict[str, dict[str, Document]] = {one.place: {} for one in group}
        paths = [one.path for one in group]
        for path, (document, reason) in folder.read_files(paths, self._folder, self._name, self._source, workers):
            if reason is None:
                found[self._place(path)][document.id] = document._replace(hash=hash_text(document.text))
            else:
                self._reject(reason)
        places = {name: place for place, documents in found.items() for name in documents}
        new = [
            document
            for documents in found.values()
            for name, document in documents.items()
            if name not in self._known or self._known[name].hash != document.hash
        ]
        ready = list(self._embed(self._clean(new))) if new else []
        gone = set().union(*(self._by_file.get(place, set()) for place in found)) - places.keys()
        gone |= {document.id for document in new if document.id in self._known} - {one.document.id for one in ready}
        with self._index.change() as change:
            for name in sorted(gone):
                change.remove(name)
            for document, passages, vectors in ready:
                change.put(document.id, Indexed(self._name, document.hash, places[document.id]), passages, vectors)
            for name in places.keys() - {document.id for document in new}:
                change.place(name, places[name])
            for one in group:
                change.read(self._name, one.place, one.file)
        self.counts["removed"] += len(gone)
        self.counts["unchanged"] += len(places) - len(new)
        self.counts["changed"] += sum(one.document.id in self._known for one in ready)
        self.counts["added"] += sum(one.document.id not in self._known for one in ready)

    def _sweep(self, gone: Iterable[str]) -> None:
        """Remove what no file holds any more: of the files `gone`, and what the line took from others."""
        with self._index.change() as change:
            for place in sorted(gone):
                change.forget(self._name, place)
            for name, one in self._index.documents(self._name).items():
                if one.file is None or one.file in gone:
                    change.remove(name)
                    self.counts["removed"] += 1

    def _clean(self, documents: list[Document]) -> Iterator[Document]:
        """By the rules of the source, as the stage `clean` does."""
        if self._source.pii != "keep" and self._pii is None:
            assets = [self._root / "data/assets" / name for name in ("ner", "places")]
            for asset in assets:
                if not asset.is_dir():
                    raise SmeltError(
                        f"{asset} is missing, which finds personal data: run `dvc repro assets@{asset.name}`"
                    )
            self._pii = PiiBlock(self._source.pii, Finder(self._params.pii, *assets))
        (self._root / SCRATCH).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ingest-", dir=self._root / SCRATCH) as scratch:
            raw, kept, rejects = (Path(scratch) / name for name in ("raw", "kept.parquet", "rejects.parquet"))
            write_documents(raw, documents)
            for shard in shards(raw):
                clean_shard(shard, kept, rejects, self._params.clean[self._source.rules], self._pii)
                for batch in read_table(rejects, ["reason"]):
                    for row in batch.to_pylist():
                        self._reject(row["reason"])
                yield from read_documents(kept)

    def _embed(self, documents: Iterator[Document]) -> Iterator[Embedded]:
        for first in documents:  # a model is loaded for one that is kept
            embedder = self._load()
            chunker = make_chunker(settings_of(self._index), embedder)
            yield from embed(itertools.chain([first], documents), chunker, embedder)

    def _reject(self, reason: str) -> None:
        self.counts["rejected"] += 1
        self.reasons[reason] += 1

    def _place(self, path: Path) -> str:
        """As the ids of documents have it."""
        return os.fsencode(path.relative_to(self._folder)).decode("utf-8", "backslashreplace")


def _groups(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    group: list[_Found] = []
    size = 0
    for one in found:
        if group and (len(group) == _GROUP_FILES or size + one.file.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.file.size
    if group:
        yield group


def ingest(root: Path, names: list[str], workers: int, log: Callable[[str], None]) -> None:
    """Bring the index of the repository at `root` up to date with the folders of these sources; none: of all.

    Raises:
        ParamsError: params.yaml is not valid.
        SmeltError: there is no index, or its embedder is not this one; a source cannot be kept up to date.
    """
    params = parameters.load(root / "params.yaml")
    with exclusive(root / SCRATCH / "ingest.lock"):
        index = Index.open(root / INDEX, to_write=True)
        wanted = settings_of(index)

        @functools.cache
        def load() -> Embedder:
            embedder = load_embedder(wanted.embedder, root, workers)
            check_same(index.facts, embedder, str(INDEX))
            return embedder

        every = [
            name for name, limit in wanted.sources.items() if limit is None and params.sources[name].kind == "folder"
        ]
        if not (names or every):
            raise SmeltError("the index takes no folder as a whole: index.sources has none whose limit is null")
        for name in names or every:
            task = Ingest(root, params, name, index, load)
            task.run(workers)
            reasons = f" {dict(sorted(task.reasons.items()))}" if task.reasons else ""
            log(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in task.counts.items()) + reasons)
        documents, passages = index.count()
        log(f"{INDEX}: {documents:,} documents, {passages:,} passages")
        index.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.ingest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "sources", nargs="*", help="names of folder sources; default: every one that the index has whole"
    )
    workers = int(os.environ.get("SMELT_WORKERS") or len(os.sched_getaffinity(0)))
    try:
        ingest(Path.cwd(), parser.parse_args().sources, workers, lambda line: print(line, flush=True))
    except (SmeltError, parameters.ParamsError) as error:
        sys.exit(f"ingest: error: {error}")
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        sys.exit(f"ingest: error: {explain(error)}")


if __name__ == "__main__":
    main()
