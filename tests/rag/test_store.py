import hashlib
import json
import random
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from chromadb.errors import InvalidArgumentError

from lib.pipeline.errors import SmeltError
from lib.rag.embed import Embedder
from lib.rag.passage import Passage
from lib.rag.store import Index, IndexWriter
from tests.rag.tiny import write_embedder

WORDS = ["the", "list", "bucket", "object", "role", "policy", "user", "queue", "topic", "stack", "function", "table"]


def passages(count: int) -> list[Passage]:
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=8)) for _ in range(count)]
    return [
        Passage(f"docs/{n}:{n}", f"docs/{n}", "docs", "Ä title" if n % 2 else "", n, n + len(text), text)
        for n, text in enumerate(texts)
    ]


def build(folder: Path, embedder: Embedder, count: int, top_k: int = 4, min_similarity: float = -1.0) -> Path:
    found = passages(count)
    with IndexWriter(folder, embedder, top_k, min_similarity) as index:
        for block in (found[: count // 2], found[count // 2 :]):
            if block:
                index.add(block, embedder.encode([passage.text for passage in block]))
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_builds_give_the_same_bytes(embedder: Embedder, tmp_path: Path) -> None:
    first = build(tmp_path / "a" / "index", embedder, 1500)
    time.sleep(1.1)  # Chroma's time stamps are in seconds
    second = build(tmp_path / "elsewhere" / "index", embedder, 1500)
    assert contents(first) == contents(second)
    assert set(contents(first)) == {"chroma/chroma.sqlite3", "index.json"}  # and no pickle


def test_searching_agrees_with_brute_force_and_changes_no_byte(embedder: Embedder, tmp_path: Path) -> None:
    folder = build(tmp_path / "index", embedder, 1500)
    before = contents(folder)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    found = passages(1500)
    vectors = embedder.encode([passage.text for passage in found])
    for _ in range(2):  # from a new private copy, and from one that is there already
        index = Index(folder, embedder, tmp_path / "copies")
        for question in ("the bucket list", "queue topic queue", "table"):
            similarities = vectors @ embedder.encode([question])[0]
            hits = index.search(question)
            nearest = np.sort(similarities)[::-1][:4]
            np.testing.assert_allclose([hit.score for hit in hits], nearest, atol=1e-5)
            for passage, similarity in hits:
                assert passage == found[passage.start]
                assert similarities[passage.start] == pytest.approx(similarity, abs=1e-5)
    assert contents(folder) == before


def test_chroma_alone_opens_a_copy(embedder: Embedder, tmp_path: Path) -> None:
    import chromadb

    build(tmp_path / "index", embedder, 30)
    collection = chromadb.PersistentClient(
        tmp_path / "index" / "chroma", chromadb.Settings(anonymized_telemetry=False)
    ).get_collection("passages")
    assert collection.count() == 30
    assert collection.get(ids=["docs/7:7"])["documents"] == [passages(8)[7].text]
    collection.add(ids=["new"], embeddings=[[1.0] * 32], documents=["still writable"])
    assert collection.count() == 31


def test_a_newer_index_replaces_the_copy(embedder: Embedder, tmp_path: Path) -> None:
    for count in (20, 30):
        index = Index(build(tmp_path / str(count), embedder, count), embedder, tmp_path / "copies")
        assert len(index.search("list")) == 4
    assert len(list((tmp_path / "copies").iterdir())) == 1


def test_top_k_and_min_similarity(embedder: Embedder, tmp_path: Path) -> None:
    index = Index(build(tmp_path / "a", embedder, 3, top_k=10), embedder, tmp_path / "copies")
    everything = index.search("the bucket list")
    assert len(everything) == 3
    least = everything[1].score - 1e-6
    index = Index(build(tmp_path / "b", embedder, 3, top_k=10, min_similarity=least), embedder, tmp_path / "copies")
    assert index.search("the bucket list") == everything[:2]


def test_an_empty_index_finds_nothing(embedder: Embedder, tmp_path: Path) -> None:
    folder = build(tmp_path / "a", embedder, 0)
    assert Index(folder, embedder, tmp_path / "copies").search("list") == []
    assert contents(folder) == contents(build(tmp_path / "b", embedder, 0))


def test_another_embedder_is_refused(embedder: Embedder, tmp_path: Path) -> None:
    folder = build(tmp_path / "index", embedder, 3)
    other = Embedder(write_embedder(tmp_path / "other", seed=1), workers=1)
    with pytest.raises(SmeltError, match=r"another embedder.*dvc repro index"):
        Index(folder, other, tmp_path / "copies")


def test_a_missing_or_damaged_index_says_what_to_do(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match="make repro"):
        Index(tmp_path / "none", embedder, tmp_path / "copies")
    folder = build(tmp_path / "index", embedder, 3)
    database = folder / "chroma" / "chroma.sqlite3"
    database.write_bytes(database.read_bytes()[:-4096])
    with pytest.raises(SmeltError, match="is damaged"):
        Index(folder, embedder, tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == []


def test_nothing_is_left_of_a_build_that_failed(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError), IndexWriter(tmp_path / "index", embedder, 4, 0.3) as index:  # noqa: PT012
        index.add(passages(1), embedder.encode(["list"]))
        index.add(passages(1), np.ones((1, 5), np.float32))
    assert contents(tmp_path / "index") == {}


def test_the_database_holds_no_time_and_no_number_of_cores(embedder: Embedder, tmp_path: Path) -> None:
    folder = build(tmp_path / "index", embedder, 3)
    with sqlite3.connect(folder / "chroma" / "chroma.sqlite3") as db:
        dump = "\n".join(
            map(
                str,
                db.execute("SELECT * FROM embeddings UNION ALL SELECT id, 0, 0, 0, created_at FROM embeddings_queue"),
            )
        )
        schema = json.loads(db.execute("SELECT schema_str FROM collections").fetchone()[0])
    assert f"{time.gmtime().tm_year}-" not in dump
    assert schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"]["hnsw"]["num_threads"] == 4
