"""A dataset on the stand-in for the hub, a source over it, and what `collect` makes of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.text.documents import Document, read_documents, read_table
from tests.sources.hub_server import HubServer
from tests.text import project

REPO = "team/texts"
README = b"""---
license: odc-by
configs:
- config_name: default
  data_files: data/*/*
- config_name: sample
  data_files:
  - split: train
    path: sample/*
---
# Texts
"""


def parquet(rows: list[dict[str, Any]], group: int = 100) -> bytes:
    """Uncompressed, so that its size is that of its texts."""
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=group, compression="none", use_dictionary=False)
    return stream.getvalue()


def row(number: int, words: int = 20) -> dict[str, Any]:
    return {
        "text": f"Text number {number}. " + f"word{number} " * words,
        "language": "de" if number % 5 == 0 else "en",
        "score": number / 10,
        "licence": "MIT" if number % 2 else None,
        "added": None,
    }


def texts(server: HubServer, shards: int = 2, rows: int = 300, **settings: int) -> str:
    """A dataset of `shards` files with `rows` rows each, numbered through; its commit."""
    files = {
        f"sample/{shard:03d}.parquet": parquet([row(shard * rows + number, **settings) for number in range(rows)])
        for shard in range(shards)
    }
    return server.add(REPO, {"README.md": README, "data/x/0.parquet": parquet([row(0)]), **files})


def source(revision: str | None, **changes: Any) -> dict[str, Any]:
    settings = project.folder(
        "hub",
        **{
            "kind": "hub",
            "repo": REPO,
            "revision": revision,
            "config": "sample",
            "split": "train",
            "messages": None,
            "licence_column": None,
            "filter": [],
            "max_mib": None,
            **changes,
        },
    )
    del settings["limits"]
    return settings


def collect(root: Path, settings: dict[str, Any]) -> tuple[list[Document], list[tuple[str, str]], dict[str, Any]]:
    """Documents, (id, reason) of the rejects, and metrics."""
    metrics = project.run(project.make(root, {"hub": settings}), "collect", "hub")
    out = root / "data/raw/hub"
    rejects = [row for batch in read_table(out / "rejects") for row in batch.to_pylist()]
    return list(read_documents(out / "documents")), [(row["id"], row["reason"]) for row in rejects], metrics


def cached(root: Path, revision: str) -> dict[str, bytes]:
    folder = root / "data/hub/team--texts" / revision
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
