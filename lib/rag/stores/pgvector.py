"""pgvector: a table of a PostgreSQL database, with a graph of neighbours (HNSW) where the dimension allows one.

Everything up to `commit` is one transaction: others see the table before or after it. A table that is filled anew is
made beside the old one and renamed, so that nobody waits for it meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from lib.pipeline.errors import SmeltError
from lib.rag.passage import Passage
from lib.rag.store import not_ours, other_dimension

_TIMEOUT = 10  # seconds, to connect
_MOST_INDEXED = 2000  # dimensions of a type `vector` that HNSW takes
_NEIGHBOURS = 200  # that HNSW looks at; its default of 40 would be the most that a lookup finds
_LEAST_VERSION = (0, 8)  # with an iterative scan, without which a filter leaves too few


class Pgvector:
    """One connection looks up and another writes, so that the transaction of a change is not ended by a lookup."""

    def __init__(self, address: str, table: str, dimension: int) -> None:
        self._address, self._table, self._dimension = address, table, dimension
        self._connections: dict[str, Any] = {}
        self._guards = {"read": threading.RLock(), "write": threading.RLock()}  # a lookup takes milliseconds
        self._filling: str | None = None  # the table that is being filled, where it is a new one
        self._where = f"the table {table} of the database of SMELT_POSTGRES"
        with self._cursor("write") as cursor:
            self._prepare(cursor)

    @contextmanager
    def _cursor(self, purpose: str) -> Iterator[Any]:
        """A cursor in a transaction that goes on; connects where there is no connection (any more)."""
        import psycopg

        with self._guards[purpose]:
            try:
                if purpose not in self._connections or self._connections[purpose].closed:
                    self._connections[purpose] = psycopg.connect(self._address, connect_timeout=_TIMEOUT)
                with self._connections[purpose].cursor() as cursor:
                    yield cursor
            except psycopg.OperationalError as error:
                self._drop(purpose)
                raise SmeltError(
                    f"the database of SMELT_POSTGRES cannot be reached: {_line(error)}. Is PostgreSQL running, and are "
                    f"address, user and password right?"
                ) from None
            except psycopg.Error as error:
                self._drop(purpose)
                raise SmeltError(f"the database of SMELT_POSTGRES refuses: {_line(error)}") from None
            except BaseException:
                self._drop(purpose)
                raise

    def _drop(self, purpose: str) -> None:
        """Close a connection, and so undo what its transaction did."""
        if connection := self._connections.pop(purpose, None):
            connection.close()
        if purpose == "write":
            self._filling = None

    def _names(self, **more: str) -> dict[str, Any]:
        from psycopg import sql

        names = {"table": self._filling or self._table, "state": f"{self._table}_state", **more}
        return {key: sql.Identifier(name) for key, name in names.items()}

    def _run(self, cursor: Any, statement: str, values: Sequence[Any] = (), **more: str) -> Any:
        from psycopg import sql

        return cursor.execute(sql.SQL(statement).format(**self._names(**more)), values or None)

    def _prepare(self, cursor: Any) -> None:
        """Make sure that the extension and the tables are there, and ours."""
        version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        if (found := cursor.execute(version).fetchone()) is None:
            cursor.execute("CREATE EXTENSION vector")
            found = cursor.execute(version).fetchone()
        if tuple(map(int, found[0].split(".")[:2])) < _LEAST_VERSION:
            raise SmeltError(
                f"{self._where}: pgvector is {found[0]}, and Smelt needs 0.8 or newer: ALTER EXTENSION vector UPDATE"
            )
        table, state = (
            cursor.execute("SELECT to_regclass(%s)", [f'"{name}"']).fetchone()[0]
            for name in (self._table, f"{self._table}_state")
        )
        if table is not None and state is None:
            raise not_ours(self._where)
        if state is None:
            self._run(cursor, "CREATE TABLE {state} (digest text NOT NULL, dimension integer NOT NULL)")
        elif (row := self._run(cursor, "SELECT dimension FROM {state}").fetchone()) and row[0] != self._dimension:
            raise other_dimension(self._where, row[0], self._dimension)
        cursor.connection.commit()

    # -- the store

    def digest(self) -> str | None:
        with self._cursor("write") as cursor:
            row = self._run(cursor, "SELECT digest FROM {state}").fetchone()
            cursor.connection.commit()
        return row[0] if row else None

    def clear(self) -> None:
        with self._cursor("write") as cursor:
            self._filling = f"{self._table}_new"
            self._run(
                cursor,
                "CREATE TABLE {table} (id text PRIMARY KEY, document text NOT NULL, source text NOT NULL, heading text "
                "NOT NULL, start integer NOT NULL, stop integer NOT NULL, text text NOT NULL, embedding "
                f"vector({self._dimension}))",
            )

    def delete(self, documents: Sequence[str]) -> None:
        with self._cursor("write") as cursor:
            self._run(cursor, "DELETE FROM {table} WHERE document = ANY(%s)", [list(documents)])

    def add(self, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        from psycopg import sql

        with self._cursor("write") as cursor:
            self._run(cursor, "DELETE FROM {table} WHERE id = ANY(%s)", [[passage.id for passage in passages]])
            rows = "COPY {table} (id, document, source, heading, start, stop, text, embedding) FROM STDIN"
            with cursor.copy(sql.SQL(rows).format(**self._names())) as copy:
                for one, vector in zip(passages, vectors, strict=True):
                    fields = (one.id, one.document, one.source, one.heading, one.start, one.end, one.text)
                    # PostgreSQL has no character 0.
                    copy.write_row(
                        [*(f.replace("\0", "\ufffd") if isinstance(f, str) else f for f in fields), _text(vector)]
                    )

    def commit(self, digest: str) -> None:
        with self._cursor("write") as cursor:
            if self._filling:
                self._run(cursor, "CREATE INDEX ON {table} (document)")
                self._run(cursor, "CREATE INDEX ON {table} (source)")
                if self._dimension <= _MOST_INDEXED:
                    self._run(cursor, "CREATE INDEX ON {table} USING hnsw (embedding vector_cosine_ops)")
                self._run(cursor, "DROP TABLE IF EXISTS {old}", old=self._table)
                self._run(cursor, "ALTER TABLE {table} RENAME TO {old}", old=self._table)
                self._filling = None
            self._run(cursor, "DELETE FROM {state}")
            self._run(cursor, "INSERT INTO {state} VALUES (%s, %s)", [digest, self._dimension])
            cursor.connection.commit()

    def nearest(self, vector: np.ndarray, limit: int, sources: Collection[str] | None) -> list[str]:
        where, values = ("", []) if sources is None else ("WHERE source = ANY(%s) ", [sorted(sources)])
        if "read" in self._connections and not self._alive():
            self._drop("read")
        with self._cursor("read") as cursor:
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute(f"SET LOCAL hnsw.ef_search = {_NEIGHBOURS}")
            rows = self._run(
                cursor,
                f"SELECT id FROM {{old}} {where}ORDER BY embedding <=> %s::vector LIMIT %s",
                [*values, _text(vector), limit],
                old=self._table,
            ).fetchall()
            cursor.connection.commit()
        return [name for (name,) in rows]

    def _alive(self) -> bool:
        """Whether the connection for lookups is still there: a server that was started again has closed it."""
        import psycopg

        with self._guards["read"]:
            try:
                self._connections["read"].execute("SELECT 1")
            except (KeyError, psycopg.OperationalError):
                return False
            return True

    def close(self) -> None:
        for purpose, guard in self._guards.items():
            with guard:
                self._drop(purpose)


def _text(vector: np.ndarray) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
