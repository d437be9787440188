import threading
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.rag.build import embed, make_chunker, settings_of
from lib.rag.fusion import reciprocal_ranks
from lib.rag.index import Index, Indexed
from lib.rag.search import Retriever
from lib.text.documents import Document
from tests.rag.hashing import Hashing
from tests.rag.tiny import document, settings, write_index

LONG = " ".join(f"the{n} list" for n in range(60))
DOCUMENTS = [
    document("list", "the list the bucket", title="Lists"),
    document("copy", "the list the bucket", title="Lists"),
    document("long", LONG),
    document("code", "q w z ERR_5043 y", title="Failures"),
    Document("other/a", "the list the bucket too", "u", "other", "CC0-1.0"),
]


@pytest.fixture(scope="module")
def embedder() -> Hashing:
    return Hashing()


@pytest.fixture(scope="module")
def index(embedder: Hashing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("models") / "index", embedder, DOCUMENTS)


@pytest.fixture
def retriever(index: Path, embedder: Hashing, tmp_path: Path) -> Retriever:
    return Retriever.open(index, embedder=embedder, stores=tmp_path / "stores")


def test_a_passage_knows_its_place(retriever: Retriever) -> None:
    (hit, *_) = retriever.search("the list the bucket")
    assert hit.passage.id == "docs/list:0"
    assert (hit.passage.document, hit.passage.source, hit.passage.heading) == ("docs/list", "docs", "Lists")


def test_vectors_agree_with_brute_force(retriever: Retriever, index: Path, embedder: Hashing) -> None:
    wanted = settings_of(Index.open(index))
    everything = list(embed(DOCUMENTS, make_chunker(wanted, embedder), embedder))
    for question in ("the bucket", "list the list", "q y"):
        vector = embedder.encode([question])[0]
        cosines = {
            passage.text: float(row @ vector)
            for one in everything
            for passage, row in zip(one.passages, one.vectors, strict=True)
        }
        nearest = sorted(cosines.values(), reverse=True)[:4]
        hits = retriever.search(question, mode="vector")
        np.testing.assert_allclose([hit.score for hit in hits], nearest, atol=1e-5)
        assert [cosines[hit.passage.text] for hit in hits] == pytest.approx(nearest, abs=1e-5)


def test_all_stores_give_the_same_answers(
    embedder: Hashing, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMELT_POSTGRES", postgres)
    monkeypatch.setenv("SMELT_COLLECTION", "test_search")
    monkeypatch.delenv("SMELT_QDRANT", raising=False)
    found = []
    for store in ("chroma", "qdrant", "pgvector"):
        folder = write_index(tmp_path / store, embedder, DOCUMENTS, store=store)
        with Retriever.open(folder, embedder=embedder, stores=tmp_path / "stores") as retriever:
            found.append([retriever.search("the bucket", 4, sources, mode)
                          for sources in (None, ["other"]) for mode in ("vector", "keyword", "hybrid")])  # fmt: skip
    assert found[0] == found[1] == found[2]


def test_search_is_limited_to_sources(retriever: Retriever) -> None:
    for mode in ("vector", "keyword", "hybrid"):
        assert {hit.passage.source for hit in retriever.search("the list", top_k=9, mode=mode)} == {"docs", "other"}
        assert {hit.passage.source for hit in retriever.search("the list", sources=["other"], mode=mode)} == {"other"}
        assert retriever.search("the list", sources=["nowhere"], mode=mode) == []
        assert retriever.search("the list", sources=[], mode=mode) == []


def test_the_same_text_is_given_once(retriever: Retriever) -> None:
    for mode in ("vector", "keyword", "hybrid"):
        texts = [hit.passage.text for hit in retriever.search("the list the bucket", top_k=20, mode=mode)]
        assert len(texts) == len(set(texts))


def test_words_find_parts_of_words_and_headings(retriever: Retriever) -> None:
    for mode in ("keyword", "hybrid"):
        assert "docs/code" in {hit.passage.document for hit in retriever.search("what is ERR_5043?", 2, mode=mode)}
    (hit, *_) = retriever.search("failures", mode="keyword")  # of the heading alone
    assert hit.passage.document == "docs/code"


def test_ranks_are_fused_as_published() -> None:
    assert reciprocal_ranks([[7, 8, 9], [9, 7]]) == {7: 1 / 61 + 1 / 62, 8: 1 / 62, 9: 1 / 63 + 1 / 61}
    assert reciprocal_ranks([[], []]) == {}


def test_what_is_not_close_enough_is_left_out(embedder: Hashing, tmp_path: Path) -> None:
    folder = write_index(tmp_path / "a", embedder, DOCUMENTS, min_similarity=0.9999, min_words=0.5)
    retriever = Retriever.open(folder, embedder=embedder, stores=tmp_path / "stores")
    assert retriever.search("5 6 7 8 9", mode="vector") == retriever.search("5 6 7 8 9", mode="hybrid") == []
    assert retriever.search("ERR_5043 nobody has these words", mode="keyword") == []
    assert retriever.search("ERR_5043", mode="keyword") == retriever.search("err_5043", mode="keyword") != []
    assert retriever.search("ERR_5043", mode="vector") == []
    assert [hit.passage.document for hit in retriever.search("ERR_5043", mode="hybrid")] == ["docs/code"]


def test_a_document_is_given_whole_and_in_order(retriever: Retriever) -> None:
    passages = retriever.document("docs/long")
    assert len(passages) > 3
    assert [passage.start for passage in passages] == sorted({passage.start for passage in passages})
    assert all(LONG[passage.start : passage.end] == passage.text for passage in passages)
    assert passages[-1].end == len(LONG)
    assert retriever.document("docs/none") == []


def test_an_empty_index_finds_nothing(embedder: Hashing, tmp_path: Path) -> None:
    folder = write_index(tmp_path / "index", embedder, [])
    retriever = Retriever.open(folder, embedder=embedder, stores=tmp_path / "stores")
    assert [retriever.search("list", mode=mode) for mode in retriever.modes] == [[], [], []]


def test_a_mode_that_does_not_exist_is_named(retriever: Retriever) -> None:
    with pytest.raises(SmeltError, match="no search mode 'psychic' here; there are: vector, keyword, hybrid"):
        retriever.search("the list", mode="psychic")
    with pytest.raises(SmeltError, match=r"rerank needs index\.rerank"):
        retriever.search("the list", mode="rerank")


def test_another_embedder_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"another embedder.*dvc repro index"):
        Retriever.open(index, embedder=Hashing(1), stores=tmp_path / "stores")


def test_without_an_index_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"no index in .*: run `make repro`"):
        Retriever.open(tmp_path)


def add(folder: Path, embedder: Hashing, *documents: Document) -> None:
    index = Index.open(folder, to_write=True)
    with index.change() as change:
        for one, passages, vectors in embed(documents, make_chunker(settings_of(index), embedder), embedder):
            change.put(one.id, Indexed(one.source, one.hash, None), passages, vectors)
    index.close()


def test_a_change_of_the_index_is_noticed(embedder: Hashing, tmp_path: Path) -> None:
    folder = write_index(tmp_path / "index", embedder, DOCUMENTS)
    retriever = Retriever.open(folder, embedder=embedder, stores=tmp_path / "stores")
    add(folder, embedder, document("new", "zebra " * 5))
    for mode in retriever.modes:
        assert retriever.search("zebra " * 5, mode=mode)[0].passage.document == "docs/new"
    write_index(tmp_path / "again", embedder, [document("only", "zebra zebra")])
    (tmp_path / "index").rename(tmp_path / "old")
    assert retriever.search("zebra")[0].passage.document == "docs/new"  # while it is being replaced
    (tmp_path / "again").rename(tmp_path / "index")
    assert {hit.passage.document for hit in retriever.search("zebra", top_k=20)} == {"docs/only"}


def test_threads_search_while_the_index_changes(embedder: Hashing, tmp_path: Path) -> None:
    folder = write_index(tmp_path / "index", embedder, DOCUMENTS)
    retriever = Retriever.open(folder, embedder=embedder, stores=tmp_path / "stores")
    errors: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                hits = retriever.search("the list the bucket", mode="hybrid")
                assert "docs/list" in {hit.passage.document for hit in hits}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(5):
        add(folder, embedder, document(f"new{n}", f"zebra {n}"))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(retriever.search("zebra", 20, mode="keyword")) == 5


def test_settings_that_do_not_fit_are_refused(embedder: Hashing) -> None:
    with pytest.raises(SmeltError, match=r"chunk_tokens is 250, and the embedder reads 256 tokens: set it to 248"):
        make_chunker(settings(chunk_tokens=250), embedder)
