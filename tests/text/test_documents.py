from pathlib import Path

import pytest

from lib.text import documents
from lib.text.documents import (
    Document,
    DocumentWriter,
    ShardWriter,
    count_documents,
    measure,
    read_documents,
    read_table,
    shards,
    write_documents,
)


def document(number: int) -> Document:
    return Document(f"s/{number}", "é" * number, "uri", "s", "MIT", '[{"a": 1}]')


def test_round_trip_over_batches_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "SHARD_BYTES", 300_000)
    monkeypatch.setattr(documents, "_BATCH", 100)
    written = [document(number) for number in range(1000)]
    writer = write_documents(tmp_path, written)
    assert list(read_documents(tmp_path)) == written
    assert [shard.name for shard in shards(tmp_path)] == [
        "00000.parquet",
        "00001.parquet",
        "00002.parquet",
        "00003.parquet",
    ]
    assert (writer.documents, writer.bytes) == measure(tmp_path) == (1000, sum(2 * number for number in range(1000)))
    assert count_documents(shards(tmp_path)[0]) == len(list(read_documents(shards(tmp_path)[0])))


def test_batches_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand long documents at once would be a gigabyte."""
    monkeypatch.setattr(documents, "_BATCH_BYTES", 10_000)
    write_documents(tmp_path, [document(number) for number in range(300)])
    sizes = [sum(map(len, batch["text"].to_pylist())) * 2 for batch in read_table(tmp_path, ["text"])]
    assert sum(sizes) == sum(2 * number for number in range(300))
    assert max(sizes) < 10_000 + 600


def test_a_shard_is_whole_or_absent(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "00007.parquet") as writer:
        for number in range(50):
            writer.write(document(number))
    assert [path.name for path in tmp_path.iterdir()] == ["00007.parquet"]
    assert count_documents(tmp_path) == 50

    def stop() -> None:
        with ShardWriter(tmp_path / "00008.parquet") as writer:
            for number in range(2000):
                writer.write(document(number))
            assert len(list(tmp_path.iterdir())) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop()
    assert [path.name for path in tmp_path.iterdir()] == ["00007.parquet"]


def test_no_documents_make_one_empty_shard(tmp_path: Path) -> None:
    with DocumentWriter(tmp_path, reject_reasons=True):
        pass
    assert [shard.name for shard in shards(tmp_path)] == ["00000.parquet"]
    assert list(read_documents(tmp_path)) == []
    assert measure(tmp_path) == (0, 0)


def test_long_documents_do_not_wait_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends with its bytes as well as with its rows, and is read as it was written."""
    monkeypatch.setattr(documents, "_BATCH_BYTES", 5_000)
    written = [document(1000) for _ in range(9)]
    write_documents(tmp_path, written)
    assert [batch.num_rows for batch in documents.read_table(tmp_path)] == [3, 3, 3]
    assert list(read_documents(tmp_path)) == written
