import random
from pathlib import Path

import pytest

from lib.text.documents import Document, read_documents, read_table, write_documents
from tests.text import project

random.seed(0)
WORDS = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(3000)]


def words(seed: int, count: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def changed(base: list[str], number: int) -> list[str]:
    """`base` with its last `number` words replaced."""
    return base[: len(base) - number] + words(10_000 + number, number)


def shingles(text: str) -> set[tuple[str, ...]]:
    split = text.lower().split()
    return {tuple(split[start : start + 5]) for start in range(len(split) - 4)}


def jaccard(first: str, second: str) -> float:
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def dedup(root: Path, texts: dict[str, dict[str, str]]) -> tuple[list[Document], dict[str, str], dict]:
    """Run the stage over {source: {name: text}}: documents, reasons by id, metrics."""
    project.make(root, {source: project.folder(source) for source in texts})
    for source, named in texts.items():
        documents = [Document(f"{source}/{name}", text, "u", source, "MIT") for name, text in named.items()]
        write_documents(root / f"data/clean/{source}/documents", documents)
    metrics = project.run(root, "dedup")
    rows = [row for batch in read_table(root / "data/dedup/rejects") for row in batch.to_pylist()]
    return list(read_documents(root / "data/dedup/documents")), {row["id"]: row["reason"] for row in rows}, metrics


BASE = " ".join(words(1))
CORPUS = {
    "empty": {},
    "own": {"unique": " ".join(words(2)), "copy": BASE, "short": "two words", "tiny": "a b"},
    "zeta": {
        "shout": BASE.upper().replace(" ", "\n"),
        "near": " ".join(changed(words(1), 4)),
        "half": " ".join(changed(words(1), 100)),
        "short again": "Two  words",
    },
    "alpha": {"original": BASE, "near": " ".join(changed(words(2), 3)), "other": " ".join(words(3))},
}


def test_the_first_of_the_first_source_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    kept, reasons, metrics = dedup(tmp_path, CORPUS)
    assert jaccard(BASE, CORPUS["zeta"]["near"]) > 0.95
    assert jaccard(BASE, CORPUS["zeta"]["half"]) < 0.5
    assert [document.id for document in kept] == [
        *("own/unique", "own/copy", "own/short", "own/tiny"),
        "zeta/half",
        "alpha/other",
    ]
    assert reasons == {
        "zeta/shout": "exact_duplicate",
        "zeta/near": "near_duplicate",
        "zeta/short again": "exact_duplicate",
        "alpha/original": "exact_duplicate",
        "alpha/near": "near_duplicate",
    }
    assert metrics == {
        "documents_in": 11,
        "documents_out": 6,
        "rejected": 5,
        "reasons": {"exact_duplicate": 3, "near_duplicate": 2},
        "sources": {
            "empty": {"documents_in": 0, "documents_out": 0},
            "own": {"documents_in": 4, "documents_out": 4},
            "zeta": {"documents_in": 4, "documents_out": 1},
            "alpha": {"documents_in": 3, "documents_out": 1},
        },
    }


def test_a_chain_of_near_duplicates_keeps_its_first_in_every_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datatrove would keep the root of a union-find, which depends on the sizes of what it joined."""
    monkeypatch.setenv("SMELT_WORKERS", "1")
    chain = {f"{number}": " ".join(changed(words(4), number)) for number in range(6)}
    for turn, order in enumerate([[0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 4, 2], [3, 4, 5, 0, 1, 2]]):
        named = {str(number): chain[str(number)] for number in order}
        kept, _, _ = dedup(tmp_path / str(turn), {"s": named})
        assert [document.id for document in kept] == [f"s/{order[0]}"]


def test_numbers_tell_documents_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    table = {str(n): " ".join(f"production in {WORDS[i]}: {n * 1000 + i} tons" for i in range(50)) for n in (1, 2)}
    kept, _, _ = dedup(tmp_path, {"s": table})
    assert len(kept) == 2


def test_the_number_of_workers_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for workers in ("1", "3"):
        monkeypatch.setenv("SMELT_WORKERS", workers)
        root = tmp_path / workers
        dedup(root, CORPUS)
        outputs.append({p.relative_to(root): p.read_bytes() for p in sorted((root / "data/dedup").rglob("*.parquet"))})
    assert outputs[0] == outputs[1]


def test_nothing_in_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    kept, reasons, _ = dedup(tmp_path, {"empty": {}, "short": {"a": "one two three"}})
    assert [document.id for document in kept] == ["short/a"]
    assert reasons == {}
    assert dedup(tmp_path / "none", {"empty": {}})[2]["documents_in"] == 0
