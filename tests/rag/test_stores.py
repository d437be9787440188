"""Each store, the real one, against brute force. Qdrant's server: SMELT_TEST_QDRANT names one that runs."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.rag.index import Index, Indexed
from lib.rag.passage import Passage
from lib.rag.store import Store, open_store, synchronise

ROOT = Path(__file__).parents[2]
DIMENSION = 16
Opener = Callable[[int], Store]


def passage(document: str, start: int = 0) -> Passage:
    text = f"text {start} of {document} \0 ' \" \\ \t ü"
    return Passage(
        f"{document}:{start}", document, document.partition("/")[0], "A heading", start, start + len(text), text
    )


def put(index: Index, *documents: str, seed: int = 0) -> None:
    with index.change() as change:
        for name in documents:
            draw = np.random.default_rng([seed, *name.encode()])
            vectors = draw.normal(size=(2, DIMENSION)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            found = [passage(name), passage(name, 50)]
            change.put(name, Indexed(name.partition("/")[0], "", None), found, vectors)


def expected(index: Index, vector: np.ndarray, limit: int, sources: set[str] | None) -> list[str]:
    near = []
    for passages, vectors in index.blocks(None, 1000):
        near += [(-float(row @ vector), one.id) for one, row in zip(passages, vectors, strict=True)
                 if sources is None or one.source in sources]  # fmt: skip
    return [name for _, name in sorted(near)[:limit]]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", {})
    put(index, *(f"docs/{n}" for n in range(150)), *(f"rare's/{n}" for n in range(3)))
    return index


@pytest.fixture(params=["chroma", "qdrant", "qdrant server", "pgvector"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    name = request.param
    monkeypatch.setenv("SMELT_COLLECTION", f"test_{os.getpid()}")
    monkeypatch.delenv("SMELT_QDRANT", raising=False)
    if name == "qdrant server":
        if not (address := os.environ.get("SMELT_TEST_QDRANT")):
            pytest.skip("no Qdrant server: SMELT_TEST_QDRANT names one, such as http://127.0.0.1:6333")
        monkeypatch.setenv("SMELT_QDRANT", address)
    if name == "pgvector":
        monkeypatch.setenv("SMELT_POSTGRES", request.getfixturevalue("postgres"))
    opened: list[Store] = []

    def open_one(dimension: int = DIMENSION) -> Store:
        opened.append(open_store(name.partition(" ")[0], dimension, tmp_path / "stores"))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
    if name == "pgvector":
        import psycopg

        with psycopg.connect(os.environ["SMELT_POSTGRES"]) as connection:
            connection.execute(f"DROP TABLE IF EXISTS test_{os.getpid()}, test_{os.getpid()}_state")
    if name == "qdrant server":
        from qdrant_client import QdrantClient

        QdrantClient(url=os.environ["SMELT_QDRANT"]).delete_collection(f"test_{os.getpid()}")


def check(store: Store, index: Index) -> None:
    """The nearest are those of brute force; an approximate graph may miss few of them."""
    assert store.digest() == index.digest
    agreed = 0
    for n in range(20):
        vector = np.random.default_rng(n).normal(size=DIMENSION).astype(np.float32)
        sources = (None, {"rare's"}, {"docs", "none"})[n % 3]
        wanted, found = expected(index, vector, 10, sources), store.nearest(vector, 10, sources)
        assert len(found) == len(wanted)
        assert found[0] == wanted[0]
        agreed += len(set(found) & set(wanted)) / len(wanted)
    assert agreed / 20 >= 0.98
    assert store.nearest(np.ones(DIMENSION, np.float32), 10, {"none"}) == []


def test_the_nearest_are_found_through_every_change(opener: Opener, index: Index) -> None:
    store = opener()
    assert store.digest() is None
    synchronise(store, index)
    check(store, index)
    put(index, "docs/1", "docs/new", seed=1)
    with index.change() as change:
        change.remove("docs/2")
        change.remove("rare's/1")
    synchronise(store, index)
    check(store, index)


def test_only_what_changed_is_sent(opener: Opener, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opener()
    synchronise(store, index)
    put(index, "docs/1", seed=1)
    sent: list[str] = []
    add = store.add
    monkeypatch.setattr(
        store, "add", lambda passages, vectors: (sent.extend(p.id for p in passages), add(passages, vectors))
    )
    synchronise(store, index)
    synchronise(store, index)
    assert sent == ["docs/1:0", "docs/1:50"]
    check(store, index)


def test_a_change_that_was_killed_is_made_up_for(opener: Opener, index: Index) -> None:
    store = opener()
    synchronise(store, index)
    put(index, "docs/new", seed=1)
    blocks = list(index.blocks(["docs/new"], 10))
    store.delete(["docs/1", "docs/3"])  # as synchronise does, and then comes no commit
    for passages, vectors in blocks:
        store.add(passages, vectors)
    with index.change() as change:  # what was added meanwhile is gone again
        for name in ("docs/new", "docs/1", "docs/3"):
            change.remove(name)
    synchronise(store, index)
    check(store, index)


def test_another_index_replaces_everything(opener: Opener, index: Index, tmp_path: Path) -> None:
    store = opener()
    synchronise(store, index)
    other = Index.create(tmp_path / "other", {"facts": "others"})
    put(other, *(f"docs/other{n}" for n in range(30)), "rare's/0", seed=5)
    synchronise(store, other)
    check(store, other)


def test_an_empty_index(opener: Opener, tmp_path: Path) -> None:
    store = opener()
    empty = Index.create(tmp_path / "empty", {})
    synchronise(store, empty)
    assert store.nearest(np.ones(DIMENSION, np.float32), 10, None) == []


@pytest.mark.parametrize("opener", ["chroma", "pgvector", "qdrant server"], indirect=True)
def test_what_was_stored_is_there_for_the_next_process(opener: Opener, index: Index) -> None:
    store = opener()
    synchronise(store, index)
    store.close()
    check(opener(), index)


def test_threads_look_up_while_one_changes(opener: Opener, index: Index) -> None:
    store = opener()
    synchronise(store, index)
    errors: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                found = store.nearest(np.ones(DIMENSION, np.float32), 5, None)
                assert len(found) == 5
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seed in range(3):
        put(index, "docs/new", seed=seed)
        synchronise(store, index)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    check(store, index)


@pytest.mark.parametrize("opener", ["pgvector", "qdrant server"], indirect=True)
def test_another_dimension_is_refused(opener: Opener, index: Index) -> None:
    synchronise(opener(), index)
    with pytest.raises(SmeltError, match=r"holds vectors of 16 dimensions, .* have 8.*SMELT_COLLECTION"):
        opener(8)


@pytest.mark.parametrize("opener", ["pgvector"], indirect=True)
def test_a_table_of_others_is_left_alone(opener: Opener) -> None:
    import psycopg

    table = os.environ["SMELT_COLLECTION"]
    with psycopg.connect(os.environ["SMELT_POSTGRES"]) as connection:
        connection.execute(f"CREATE TABLE {table} (precious text)")
    with pytest.raises(SmeltError, match=f"the table {table} .*is there already, and Smelt did not make it"):
        opener()


def test_a_store_that_is_down_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_QDRANT", "http://127.0.0.1:9")
    with pytest.raises(SmeltError, match=r"Qdrant server at http://127\.0\.0\.1:9 cannot be reached.*SMELT_QDRANT"):
        open_store("qdrant", DIMENSION, tmp_path)
    monkeypatch.setenv("SMELT_POSTGRES", "postgresql://me:secret@127.0.0.1:9/none")
    with pytest.raises(SmeltError, match="SMELT_POSTGRES cannot be reached") as caught:
        open_store("pgvector", DIMENSION, tmp_path)
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("SMELT_POSTGRES")
    with pytest.raises(SmeltError, match="SMELT_POSTGRES does not say where"):
        open_store("pgvector", DIMENSION, tmp_path)
    monkeypatch.setenv("SMELT_COLLECTION", 'x"; DROP TABLE')
    with pytest.raises(SmeltError, match="SMELT_COLLECTION is"):
        open_store("pgvector", DIMENSION, tmp_path)


def test_a_damaged_chroma_is_made_again(index: Index, tmp_path: Path) -> None:
    store = open_store("chroma", DIMENSION, tmp_path / "stores")
    synchronise(store, index)
    store.close()
    (tmp_path / "stores/chroma-0/chroma.sqlite3").write_bytes(b"rubbish")
    code = "from pathlib import Path; from lib.rag.store import open_store; open_store('chroma', 16, Path('stores'))"
    ways = [subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                           capture_output=True, text=True, check=False) for _ in range(2)]  # fmt: skip
    assert ["run the same command again" in way.stderr for way in ways] == [True, False]
    assert ways[1].returncode == 0


def test_two_processes_have_a_chroma_each(index: Index, tmp_path: Path) -> None:
    first, second = (open_store("chroma", DIMENSION, tmp_path / "stores") for _ in range(2))
    for store in (first, second):
        synchronise(store, index)
        check(store, index)
        store.close()
    assert sorted(path.name for path in (tmp_path / "stores").iterdir() if path.is_dir()) == ["chroma-0", "chroma-1"]


def test_chroma_alone_reads_what_was_stored(index: Index, tmp_path: Path) -> None:
    import chromadb

    store = open_store("chroma", DIMENSION, tmp_path / "stores")
    synchronise(store, index)
    store.close()
    client = chromadb.PersistentClient(tmp_path / "stores/chroma-0", chromadb.Settings(anonymized_telemetry=False))
    assert client.get_collection("passages").get(ids=["docs/7:50"])["documents"] == [passage("docs/7", 50).text]
