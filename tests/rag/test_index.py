import hashlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.rag.index import DATABASE, File, Index, Indexed
from lib.rag.passage import Passage
from lib.rag.words import words

VOCABULARY = ["the", "list", "bucket", "object", "role", "policy", "queue", "topic", "stack", "函数列表", "Größe"]
DIMENSION = 8


def passages(document: str, seed: int, count: int = 2) -> list[Passage]:
    draw = random.Random(f"{document} {seed}")
    texts = [" ".join(draw.choices(VOCABULARY, k=draw.randrange(3, 12))) for _ in range(count)]
    return [
        Passage(
            f"{document}:{100 * n}",
            document,
            document.partition("/")[0],
            "A heading",
            100 * n,
            100 * n + len(text),
            text,
        )
        for n, text in enumerate(texts)
    ]


def vectors(found: list[Passage]) -> np.ndarray:
    return np.array([np.random.default_rng(len(one.text)).normal(size=DIMENSION) for one in found], np.float32)


def put(index: Index, *documents: str, seed: int = 0) -> None:
    with index.change() as change:
        for name in documents:
            found = passages(name, seed)
            change.put(name, Indexed(name.partition("/")[0], f"hash {seed}", None), found, vectors(found))


def build(folder: Path, documents: int = 40) -> Index:
    index = Index.create(folder, {"embedder": "x"})
    put(index, *(f"{'docs' if n % 3 else 'notes'}/{n}" for n in range(documents)))
    index.compact()
    return index


def consistent(index: Index) -> None:
    """The inverted index holds what the passages hold, no more and no less."""
    with sqlite3.connect(index.path) as db:
        rows = db.execute("SELECT number, text FROM passages").fetchall()
        for term in ("list", "queue", "bucket"):
            having = {number for number, text in rows if term in words(text)}
            assert {number for (number,) in db.execute("SELECT rowid FROM words WHERE words MATCH ?", [term])} == having
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    files = [build(tmp_path / name / "index").path for name in ("a", "elsewhere")]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in files}) == 1
    assert os.listdir(files[0].parent) == [DATABASE]


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    build(tmp_path / "index").close()
    index = Index.open(tmp_path / "index")
    assert index.facts == {"embedder": "x"}
    assert index.count() == (40, 80)
    assert index.sources() == {"docs": 52, "notes": 28}
    assert index.document("docs/7") == passages("docs/7", 0)
    (number,) = index.numbers(["docs/7:100", "docs/7:99", "gone:0"])
    passage, vector = index.passages([number])[number]
    assert passage == passages("docs/7", 0)[1]
    assert vector.tolist() == vectors(passages("docs/7", 0))[1].tolist()
    everything = [one for block, _ in index.blocks(None, 7) for one in block]
    assert sorted(everything, key=lambda one: one.id) == sorted(
        (one for name in index.documents() for one in passages(name, 0)), key=lambda one: one.id
    )


def test_changes_are_told_to_whoever_has_an_older_state(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    first = index.digest
    put(index, "docs/1", "docs/new", seed=1)
    second = index.digest
    with index.change() as change:
        change.remove("docs/2")
        change.remove("docs/new")
        change.remove("never there")
    assert index.changed_since(first) == ["docs/1", "docs/2", "docs/new"]
    assert index.changed_since(second) == ["docs/2", "docs/new"]
    assert index.changed_since(index.digest) == []
    assert index.changed_since("another index") is None
    assert index.document("docs/1") == passages("docs/1", 1)
    assert index.count() == (39, 78)
    consistent(index)
    put(index, "docs/2")  # back again
    assert index.changed_since(first) == ["docs/1", "docs/2", "docs/new"]
    consistent(index)


def test_the_same_number_of_other_changes_is_another_state(tmp_path: Path) -> None:
    one, other = (build(tmp_path / name) for name in "ab")
    put(one, "docs/new", seed=1)
    put(other, "docs/new", seed=2)
    assert one.digest != other.digest
    assert other.changed_since(one.digest) is None


def test_noting_files_changes_no_state(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    before = index.digest
    with index.change() as change:
        change.read("docs", "a.txt", File(3, 5))
        change.place("docs/1", "a.txt")
    assert index.digest == before
    assert index.files("docs") == {"a.txt": File(3, 5)}
    assert index.documents("docs")["docs/1"] == Indexed("docs", "hash 0", "a.txt")


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    before = (index.digest, index.count(), index.document("docs/1"))
    with pytest.raises(ValueError, match="zip"), index.change() as change:  # noqa: PT012
        change.remove("docs/1")
        change.put("docs/3", Indexed("docs", "", None), passages("docs/3", 1), np.zeros((1, DIMENSION)))
    assert (index.digest, index.count(), index.document("docs/1")) == before
    consistent(index)


def test_bm25_is_okapi(tmp_path: Path) -> None:
    """An independent reckoning, of Robertson and Zaragoza 2009, with FTS5's k1 = 1.2 and b = 0.75, headings aside."""
    index = Index.create(tmp_path / "index", {})
    texts = ["alpha beta", "alpha alpha gamma delta", "beta gamma", "delta delta delta", "epsilon"]
    with index.change() as change:
        for n, text in enumerate(texts):
            one = Passage(f"d/{n}:0", f"d/{n}", "d", "", 0, len(text), text)
            change.put(f"d/{n}", Indexed("d", "", None), [one], np.zeros((1, DIMENSION)))
    bags = [Counter(text.split()) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    scores = {}
    for n, bag in enumerate(bags):
        for term in ("alpha", "gamma"):
            df = sum(term in bag for bag in bags)
            idf = log((len(bags) - df + 0.5) / (df + 0.5))
            tf = bag[term] * 2.2 / (bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / mean))
            scores[n + 1] = scores.get(n + 1, 0.0) + idf * tf
    found = {match.number: match.bm25 for match in index.keywords("alpha, or gamma?", 10, None)}
    assert found == pytest.approx({number: score for number, score in scores.items() if score}, rel=1e-6)


def test_words_are_found_in_any_form_and_script(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    texts = {number: one.text for number, (one, _) in index.passages(range(1, 81)).items()}
    for question, needed in (
        ("LISTING lists", "list"),
        ("列表", "函数列表"),
        ("grosse", "Größe"),
        ("ｌｉｓｔ", "list"),
    ):
        found = {match.number for match in index.keywords(question, 100, None)}
        assert found == {number for number, text in texts.items() if needed in text.split()}, question
    assert index.keywords('" OR * NEAR( -- "', 5, None) == []
    assert index.keywords("", 5, None) == index.keywords("unheard", 5, None) == index.keywords("list", 5, []) == []
    assert {match.number for match in index.keywords("list", 100, ["notes"])} < set(texts)


def test_the_share_counts_rare_words_more(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", {})
    with index.change() as change:
        for n in range(20):
            text = "common " + ("rare" if n == 7 else f"filler{n}")
            one = Passage(f"d/{n}:0", f"d/{n}", "d", "", 0, len(text), text)
            change.put(f"d/{n}", Indexed("d", "", None), [one], np.zeros((1, DIMENSION)))
    (match,) = index.keywords("common rare", 10, None)
    assert match.share == pytest.approx(1)
    (match,) = index.keywords("common rare unknown unheard", 10, None)
    assert 0.2 < match.share < 0.3  # a word that nobody has is the rarest


def test_threads_read_while_another_writes(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                assert len(index.document("docs/1")) == 2
                index.keywords("list bucket", 5, None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for seed in range(10):
        put(index, "docs/1", f"docs/new{seed}", seed=seed)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    consistent(index)


def test_writing_leaves_a_file_that_is_shared_alone(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    index.close()
    os.link(index.path, tmp_path / "cache")
    before = (tmp_path / "cache").read_bytes()
    put(Index.open(tmp_path / "index", to_write=True), "docs/new")
    assert (tmp_path / "cache").read_bytes() == before
    assert Index.open(tmp_path / "index").document("docs/new")


def test_reading_changes_no_byte_and_needs_no_permission(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    before = index.path.read_bytes()
    index.path.chmod(0o444)
    index = Index.open(tmp_path / "index")
    index.keywords("list", 5, None)
    index.close()
    assert index.path.read_bytes() == before


def test_a_missing_foreign_or_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"no index in .*: run `make repro`"):
        Index.open(tmp_path / "none")
    index = build(tmp_path / "index")
    index.close()
    whole = index.path.read_bytes()
    for damage in (whole[:-4096], whole[:50], b"", b"no database at all" * 100):
        index.path.write_bytes(damage)
        with pytest.raises(SmeltError, match="is damaged"):
            Index.open(tmp_path / "index")
    index.path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(SmeltError, match="is damaged"):
        Index.open(tmp_path / "index")
    shutil.rmtree(tmp_path / "index")
    index = build(tmp_path / "index")
    with sqlite3.connect(index.path) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(SmeltError, match=r"has format 1, .*dvc repro index"):
        Index.open(tmp_path / "index")
