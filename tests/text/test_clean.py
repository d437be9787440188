from pathlib import Path
from typing import Any

import pytest

from lib.pipeline.run import Run
from lib.text import clean
from lib.text.documents import Document, DocumentWriter, ShardWriter, read_documents, read_table, write_documents
from tests.text import project

GOOD = "The boiler on the third floor is inspected twice a year, and the report of the engineer is kept for ten years."


def test_documents_in_are_documents_out_and_rejects(tmp_path: Path) -> None:
    texts = {"good": GOOD + "\r\n", "short": "Too few words.", "figures": "12 34 56 78 " * 10, "blank": "\u200b \n"}
    project.make(tmp_path, {"internal": project.folder("internal")})
    written = [Document(f"internal/{name}", text, "u", "internal", "MIT") for name, text in texts.items()]
    write_documents(tmp_path / "data/raw/internal/documents", written)
    metrics = project.run(tmp_path, "clean", "internal")
    kept = list(read_documents(tmp_path / "data/clean/internal/documents"))
    rows = [row for batch in read_table(tmp_path / "data/clean/internal/rejects") for row in batch.to_pylist()]
    assert kept == [written[0]._replace(text=GOOD)]
    assert {row["id"]: row["reason"] for row in rows} == {
        "internal/short": "min_words",
        "internal/figures": "min_mean_word_length",
        "internal/blank": "empty",
    }
    assert metrics == {
        "documents_in": 4,
        "documents_out": 1,
        "rejected": 3,
        "bytes_in": sum(len(text.encode()) for text in texts.values()),
        "bytes_out": len(GOOD),
        "reasons": {"empty": 1, "min_mean_word_length": 1, "min_words": 1},
        "pii": {"policy": "keep", "documents_redacted": 0, "documents_dropped": 0, "values": {}},
    }


def test_an_empty_source_stays_empty(tmp_path: Path) -> None:
    project.make(tmp_path, {"internal": project.folder("internal")})
    with DocumentWriter(tmp_path / "data/raw/internal/documents"):
        pass
    assert project.run(tmp_path, "clean", "internal")["documents_out"] == 0
    assert list(read_documents(tmp_path / "data/clean/internal/documents")) == []


def shards(root: Path) -> None:
    """A source of three shards and an empty one, in which every third document is too short."""
    project.make(root, {"internal": project.folder("internal")})
    for shard, count in enumerate([40, 7, 0, 25]):
        with ShardWriter(root / f"data/raw/internal/documents/{shard:05d}.parquet") as writer:
            for n in range(count):
                text = f"{GOOD} {shard}-{n}" if n % 3 else f"{n}"
                writer.write(Document(f"internal/{shard}/{n}", text, "u", "internal", "MIT"))


def written(root: Path) -> dict[str, bytes]:
    folder = root / "data/clean/internal"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_shards_keep_their_numbers_whoever_cleans_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    for workers in ("1", "2"):
        monkeypatch.setenv("SMELT_WORKERS", workers)
        shards(tmp_path / workers)
        metrics = project.run(tmp_path / workers, "clean", "internal")
        found.append((metrics, written(tmp_path / workers)))
    assert found[0] == found[1]
    metrics, files = found[0]
    assert list(files) == [f"{kind}/0000{n}.parquet" for kind in ("documents", "rejects") for n in range(4)]
    assert (metrics["documents_in"], metrics["rejected"]) == (72, 14 + 3 + 9)


def test_a_run_stopped_at_its_end_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    shards(tmp_path / "whole")
    expected = project.run(tmp_path / "whole", "clean", "internal")
    shards(tmp_path / "stopped")

    def stopped(run: Run, record: dict) -> None:
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "publish", stopped)
        with pytest.raises(SystemExit):
            project.run(tmp_path / "stopped", "clean", "internal")
    assert not written(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(clean, "chain", None)  # no shard is cleaned again
        assert project.run(tmp_path / "stopped", "clean", "internal") == expected
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
