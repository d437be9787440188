"""The index: documents, their passages, vectors and words in one SQLite database, `passages.sqlite`.

It is the record that everything else is made from. A change is one transaction, so that an index whose writer was
killed is the one before or after it, and takes time in proportion to what changes. So does the keyword search, whose
inverted index (FTS5) is a part of the same transaction. Every change has a number and a digest that is chained to the
one before; a vector store remembers the digest that it has, and asks for what changed since then.

Written by the same steps, two databases have the same bytes: there is no time, no path and no random name in them,
until `make ingest` notes the files that it read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.keywords import Match, search
from lib.rag.passage import Passage
from lib.rag.words import words

DATABASE = "passages.sqlite"
_FORMAT = 2
_WAIT = 30  # seconds that a reader waits for a writer to finish its transaction
_HEADER = 100  # bytes
_MOST_VARIABLES = 900  # of one statement; older SQLites take 999
_SCHEMA = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE changes (number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
CREATE TABLE documents (id TEXT PRIMARY KEY, source TEXT NOT NULL, hash TEXT NOT NULL, file TEXT,
                        change INTEGER NOT NULL);
CREATE INDEX documents_by_source ON documents (source);
CREATE INDEX documents_by_change ON documents (change);
CREATE TABLE removed (document TEXT PRIMARY KEY, change INTEGER NOT NULL);
CREATE TABLE files (source TEXT, path TEXT, size INTEGER, mtime INTEGER, PRIMARY KEY (source, path));
CREATE TABLE passages (number INTEGER PRIMARY KEY, document TEXT NOT NULL, source TEXT NOT NULL, heading TEXT NOT NULL,
                       start INTEGER NOT NULL, stop INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL);
CREATE UNIQUE INDEX passages_by_document ON passages (document, start);
CREATE VIRTUAL TABLE words USING fts5 (heading, body, content = '', tokenize = 'porter unicode61 remove_diacritics 2');
"""
_COLUMNS = "document, source, heading, start, stop, text"


class Indexed(NamedTuple):
    """What the index knows of a document."""

    source: str
    hash: str  # of its text as it was collected
    file: str | None  # that it is from, where `make ingest` read it


class File(NamedTuple):
    """A file as it was when `make ingest` read it."""

    size: int
    mtime: int  # nanoseconds


class Index:
    """An open index. Threads may read it at the same time, each over a connection of its own; one thread writes.

    Attributes:
        facts: what it was built with, as `create` got it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        with self.mended():
            self._db.execute("BEGIN")  # no writer ends its transaction meanwhile, so that the file is in one state
            facts = dict(self._db.execute("SELECT key, value FROM facts"))
            _refuse_truncated(path)
            self._db.execute("COMMIT")
        self.facts: dict[str, Any] = json.loads(facts["facts"])

    @classmethod
    def create(cls, folder: Path, facts: dict[str, Any]) -> Index:
        """An empty index in the new folder `folder`."""
        folder.mkdir(parents=True)
        db = sqlite3.connect(folder / DATABASE)
        db.executescript(_SCHEMA)
        text = json.dumps(facts, sort_keys=True)
        db.execute(f"PRAGMA user_version = {_FORMAT}")
        db.execute("INSERT INTO facts VALUES ('facts', ?)", [text])
        db.execute("INSERT INTO changes VALUES (0, ?)", [hashlib.sha256(text.encode()).hexdigest()])
        db.commit()
        db.close()
        return cls(folder / DATABASE)

    @classmethod
    def open(cls, folder: Path, to_write: bool = False) -> Index:
        """The index in `folder`. To write, a file that DVC's cache shares is replaced by a copy first.

        Raises:
            SmeltError: there is none, or it is damaged, or of another version of Smelt.
        """
        path = folder / DATABASE
        if not path.is_file():
            raise SmeltError(f"there is no index in {folder}: run `make repro` first, or `make pull`")
        if path.stat().st_size < _HEADER:
            raise damaged(path, "this is no SQLite database")
        if to_write and (path.is_symlink() or path.stat().st_nlink > 1 or not os.access(path, os.W_OK)):
            copy = path.with_name(f".{path.name}.partial")
            shutil.copyfile(path, copy)
            os.replace(copy, path)
        return cls(path)

    # -- reading

    @property
    def _db(self) -> sqlite3.Connection:
        if getattr(self._local, "db", None) is None:
            mode = "rw" if os.access(self.path, os.W_OK) else "ro"  # a journal that a killed writer left is rolled back
            db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT)
            if (found := db.execute("PRAGMA user_version").fetchone()[0]) != _FORMAT:
                raise SmeltError(f"{self.path} has format {found}, this Smelt reads {_FORMAT}: run `dvc repro index`")
            self._local.db = db
        return self._local.db

    @contextmanager
    def mended(self) -> Iterator[None]:
        """Say of a damaged database what to do.

        Raises:
            SmeltError: instead of SQLite's own error.
        """
        try:
            yield
        except sqlite3.OperationalError as error:
            raise SmeltError(f"{self.path} cannot be read: {error}") from None
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, str(error)) from None

    @property
    def digest(self) -> str:
        """Names the state of the index: of its facts and of every change since."""
        with self.mended():
            return self._db.execute("SELECT digest FROM changes ORDER BY number DESC LIMIT 1").fetchone()[0]

    def changed_since(self, digest: str) -> list[str] | None:
        """Documents added, changed or removed since the state `digest`; None if this index was never in it."""
        with self.mended():
            row = self._db.execute("SELECT number FROM changes WHERE digest = ?", [digest]).fetchone()
            if row is None:
                return None
            changed = self._db.execute(
                "SELECT id FROM documents WHERE change > ? UNION SELECT document FROM removed WHERE change > ? "
                "ORDER BY 1",
                [row[0], row[0]],
            )
            return [name for (name,) in changed]

    def count(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        with self.mended():
            return self._db.execute(
                "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)"
            ).fetchone()

    def sources(self) -> dict[str, int]:
        """How many passages each source has."""
        with self.mended():
            return dict(self._db.execute("SELECT source, count(*) FROM passages GROUP BY source ORDER BY source"))

    def documents(self, source: str | None = None) -> dict[str, Indexed]:
        """Every document, or those of one source, by id."""
        where, values = ("", []) if source is None else (" WHERE source = ?", [source])
        with self.mended():
            rows = self._db.execute(f"SELECT id, source, hash, file FROM documents{where} ORDER BY id", values)
            return {name: Indexed(*rest) for name, *rest in rows}

    def files(self, source: str) -> dict[str, File]:
        """The files that `make ingest` has read of a source, by path inside its folder."""
        with self.mended():
            rows = self._db.execute("SELECT path, size, mtime FROM files WHERE source = ?", [source])
            return {path: File(*rest) for path, *rest in rows}

    def passages(self, numbers: Sequence[int]) -> dict[int, tuple[Passage, np.ndarray]]:
        """Passages and their vectors, float32 [dimension], by number."""
        with self.mended():
            rows = self._db.execute(
                f"SELECT number, vector, {_COLUMNS} FROM passages WHERE number IN ({_marks(numbers)})", list(numbers)
            )
            return {number: (_passage(*rest), np.frombuffer(vector, np.float32)) for number, vector, *rest in rows}

    def numbers(self, ids: Iterable[str]) -> list[int]:
        """The numbers of passages by their ids, in their order, without those that are there no more."""
        found = []
        with self.mended():
            for name in ids:
                document, _, start = name.rpartition(":")
                row = self._db.execute(
                    "SELECT number FROM passages WHERE document = ? AND start = ?", [document, start]
                )
                found += [number for (number,) in row]
        return found

    def document(self, name: str) -> list[Passage]:
        """The passages of a document, in its order."""
        with self.mended():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM passages WHERE document = ? ORDER BY start", [name])
            return [_passage(*row) for row in rows]

    def blocks(self, documents: Sequence[str] | None, size: int) -> Iterator[tuple[list[Passage], np.ndarray]]:
        """Passages of `documents` (None: of all) with their vectors, [passages, dimension], about `size` at a time."""
        wanted = [None] if documents is None else list(_chunks(documents))
        for names in wanted:
            where, values = ("", []) if names is None else (f" WHERE document IN ({_marks(names)})", names)
            with self.mended():
                rows = self._db.execute(f"SELECT vector, {_COLUMNS} FROM passages{where} ORDER BY number", values)
                while block := rows.fetchmany(size):
                    vectors = np.frombuffer(b"".join(row[0] for row in block), np.float32).reshape(len(block), -1)
                    yield [_passage(*row[1:]) for row in block], vectors

    def keywords(self, question: str, limit: int, sources: Collection[str] | None) -> list[Match]:
        """The passages that share words with `question`, the nearest first; see lib/rag/keywords.py."""
        with self.mended():
            return search(self._db, question, limit, sources)

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "db", None) is not None:
            self._local.db.close()
            self._local.db = None

    # -- writing

    @contextmanager
    def change(self) -> Iterator[Change]:
        """Change documents in one transaction. It is there as a whole when the block ends, or not at all."""
        db = self._db
        with self.mended():
            db.isolation_level = None
            db.execute("BEGIN IMMEDIATE")
        try:
            (number, digest) = db.execute("SELECT number, digest FROM changes ORDER BY number DESC LIMIT 1").fetchone()
            change = Change(db, number + 1, digest)
            yield change
            change.note()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def compact(self) -> None:
        """Bring the database into its shortest form, which does not depend on how it was filled in blocks."""
        self._db.execute("INSERT INTO words (words) VALUES ('optimize')")
        self._db.commit()
        self._db.execute("VACUUM")


class Change:
    """What one transaction does to the documents of an index."""

    def __init__(self, db: sqlite3.Connection, number: int, digest: str) -> None:
        self._db, self._number = db, number
        self._digest, self._empty = hashlib.sha256(digest.encode()), True

    def put(self, name: str, document: Indexed, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        """Add a document, or replace it, by its passages and their vectors, [passages, dimension]."""
        self._clear(name)
        self._db.execute("DELETE FROM removed WHERE document = ?", [name])
        self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", [name, *document, self._number])
        self._say("+", name, document.hash)
        for passage, vector in zip(passages, np.asarray(vectors, np.float32), strict=True):
            row = self._db.execute(
                f"INSERT INTO passages ({_COLUMNS}, vector) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [name, document.source, passage.heading, passage.start, passage.end, passage.text, vector.tobytes()],
            )
            self._db.execute(
                "INSERT INTO words (rowid, heading, body) VALUES (?, ?, ?)", [row.lastrowid, *_words(passage)]
            )
            self._digest.update(hashlib.sha256(passage.text.encode()).digest())

    def remove(self, name: str) -> None:
        """Remove a document, if it is there."""
        if self._clear(name):
            self._db.execute("INSERT OR REPLACE INTO removed VALUES (?, ?)", [name, self._number])
            self._say("-", name, "")

    def place(self, name: str, file: str) -> None:
        """Note which file a document is from; it stays as it is."""
        self._db.execute("UPDATE documents SET file = ? WHERE id = ?", [file, name])

    def read(self, source: str, path: str, file: File) -> None:
        """Note that a file was read."""
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", [source, path, *file])

    def forget(self, source: str, path: str) -> None:
        """Note that a file is gone."""
        self._db.execute("DELETE FROM files WHERE source = ? AND path = ?", [source, path])

    def note(self) -> None:
        """Give the change its number, if it changed a document."""
        if not self._empty:
            self._db.execute("INSERT INTO changes VALUES (?, ?)", [self._number, self._digest.hexdigest()])

    def _clear(self, name: str) -> bool:
        rows = self._db.execute(f"SELECT number, {_COLUMNS} FROM passages WHERE document = ?", [name]).fetchall()
        for number, *rest in rows:  # an index without the texts has to be told what it forgets
            self._db.execute(
                "INSERT INTO words (words, rowid, heading, body) VALUES ('delete', ?, ?, ?)",
                [number, *_words(_passage(*rest))],
            )
        self._db.execute("DELETE FROM passages WHERE document = ?", [name])
        return self._db.execute("DELETE FROM documents WHERE id = ?", [name]).rowcount > 0

    def _say(self, *what: str) -> None:
        self._digest.update(json.dumps(what).encode())
        self._empty = False


def damaged(path: Path, why: str) -> SmeltError:
    return SmeltError(
        f"{path} is damaged ({why}): run `dvc checkout --force models/index`, or `dvc repro --force index`"
    )


def _refuse_truncated(path: Path) -> None:
    """SQLite itself would notice only where it reads (https://www.sqlite.org/fileformat.html, 1.3)."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER)
    (page_size,), (pages,) = struct.unpack(">H", header[16:18]), struct.unpack(">I", header[28:32])
    if path.stat().st_size < pages * (65536 if page_size == 1 else page_size):
        raise damaged(path, "its end is missing")


def _passage(document: str, source: str, heading: str, start: int, stop: int, text: str) -> Passage:
    return Passage(f"{document}:{start}", document, source, heading, start, stop, text)


def _words(passage: Passage) -> tuple[str, str]:
    return " ".join(words(passage.heading)), " ".join(words(passage.text))


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), _MOST_VARIABLES):
        yield list(names[at : at + _MOST_VARIABLES])
