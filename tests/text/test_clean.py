from pathlib import Path

from lib.text.documents import Document, DocumentWriter, read_documents, read_table, write_documents
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
