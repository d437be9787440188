from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.rag.embed import Embedder
from lib.rag.search import Retriever
from lib.text.documents import Document
from tests.rag.tiny import document, write_index

LONG = " ".join(f"the{n} list" for n in range(60))


@pytest.fixture(scope="module")
def index(embedder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = [
        document("list", "the list the bucket", title="Lists"),
        document("long", LONG),
        Document("other/a", "the list the bucket too", "u", "other", "CC0-1.0"),
    ]
    return write_index(tmp_path_factory.mktemp("models") / "index", embedder_folder, documents)


@pytest.fixture
def retriever(index: Path, embedder: Embedder, tmp_path: Path) -> Retriever:
    return Retriever.open(index, embedder, tmp_path / "copies")


def test_a_passage_knows_its_place(retriever: Retriever) -> None:
    (hit, *_) = retriever.search("the list the bucket")
    assert hit.passage.id == "docs/list:0"
    assert (hit.passage.document, hit.passage.source, hit.passage.heading) == ("docs/list", "docs", "Lists")
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_search_is_limited_to_sources(retriever: Retriever) -> None:
    assert {hit.passage.source for hit in retriever.search("the list", top_k=9)} == {"docs", "other"}
    assert {hit.passage.source for hit in retriever.search("the list", sources=["other"])} == {"other"}
    assert retriever.search("the list", sources=["nowhere"]) == retriever.search("the list", sources=[]) == []


def test_a_document_is_given_whole_and_in_order(retriever: Retriever) -> None:
    passages = retriever.document("docs/long")
    assert len(passages) > 3
    assert [passage.start for passage in passages] == sorted({passage.start for passage in passages})
    assert all(LONG[passage.start : passage.end] == passage.text for passage in passages)
    assert passages[-1].end == len(LONG)
    assert retriever.document("docs/none") == []


def test_a_mode_that_does_not_exist_is_named(retriever: Retriever) -> None:
    with pytest.raises(SmeltError, match="no search mode 'psychic'; there are: vector"):
        retriever.search("the list", mode="psychic")


def test_without_an_index_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"no index in .*: run `make repro`"):
        Retriever.open(tmp_path)
