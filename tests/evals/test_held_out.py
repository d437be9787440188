"""The held-out sample: its size, and what does and does not move it."""

from pathlib import Path

from lib.evals.held_out import sample_held_out
from lib.text.documents import Document, write_documents

BUDGET = 1000


def documents(source: str, count: int, text: str = "naïve — 猫 ") -> list[Document]:
    return [Document(f"{source}/{n}", f"{n} {text * (n % 7)}", "u", source, "MIT") for n in range(count)]


def size(sample: list[Document], source: str) -> int:
    return sum(len(found.text.encode()) for found in sample if found.source == source)


def test_every_source_gives_its_budget_to_the_last_character(tmp_path: Path) -> None:
    everything = documents("a", 300) + documents("b", 3)
    write_documents(tmp_path, everything)
    sample = sample_held_out(tmp_path, BUDGET)
    texts = {found.id: found.text for found in everything}
    assert BUDGET - 3 <= size(sample, "a") <= BUDGET  # a cut character may take three bytes with it
    assert size(sample, "b") == sum(len(found.text.encode()) for found in everything if found.source == "b")
    cut = [found for found in sample if found.text != texts[found.id]]
    assert len(cut) <= 1
    assert all(texts[found.id].startswith(found.text) for found in sample)
    assert [found.source for found in sample] == sorted(found.source for found in sample)


def test_one_document_larger_than_the_budget_is_cut(tmp_path: Path) -> None:
    write_documents(tmp_path, [Document("a/1", "猫" * 5000, "u", "a", "MIT")])
    (found,) = sample_held_out(tmp_path, BUDGET)
    assert found.text == "猫" * (BUDGET // 3)


def test_sample_depends_on_neither_order_nor_other_sources(tmp_path: Path) -> None:
    both = documents("a", 200) + documents("b", 200)
    write_documents(tmp_path / "1", both)
    write_documents(tmp_path / "2", both[::-1])
    write_documents(tmp_path / "3", documents("a", 200))
    sample = sample_held_out(tmp_path / "1", BUDGET)
    assert sample == sample_held_out(tmp_path / "2", BUDGET)
    assert [found for found in sample if found.source == "a"] == sample_held_out(tmp_path / "3", BUDGET)


def test_nothing_held_out_gives_an_empty_sample(tmp_path: Path) -> None:
    write_documents(tmp_path, [])
    assert sample_held_out(tmp_path, BUDGET) == []
