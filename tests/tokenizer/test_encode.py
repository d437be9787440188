"""Token shards: what is on disk is what the documents say."""

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from lib.text.documents import Document
from lib.tokenizer import encode
from lib.tokenizer.encode import encode_documents, measure_bytes_per_token, token_dtype, write_index


def documents(count: int) -> list[Document]:
    text = "Iron flows. <|endoftext|> e\u0301 猫 "
    return [Document(f"s/{n}", text * (n % 9), "u", "ab"[n % 2], "MIT") for n in range(count)]


def stored(folder: Path, shards: list[dict]) -> list[np.ndarray]:
    """Documents as token ids, read back by `starts`."""
    found = []
    for shard in shards:
        tokens = np.load(folder / shard["file"], mmap_mode="r", allow_pickle=False)
        starts = np.load(folder / shard["file"].replace(".npy", ".starts.npy"), allow_pickle=False)
        assert (tokens.dtype, starts.dtype) == (np.uint16, np.int64)
        assert (len(tokens), len(starts)) == (shard["tokens"], shard["documents"])
        assert starts[0] == 0
        found += np.split(tokens, starts[1:])
    return found


@pytest.mark.parametrize("shard_tokens", [1, 300, 10**6])
def test_documents_come_back_from_the_shards(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_tokens: int
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 500)
    done = encode_documents(tokenizer, iter(documents(50)), tmp_path / "train", shard_tokens, 32)
    found = stored(tmp_path / "train", done.shards)
    for ids, document in zip(found, documents(50), strict=True):
        assert ids[-1] == 0
        assert 0 not in ids[:-1]
        assert tokenizer.decode(ids[:-1].tolist()) == unicodedata.normalize("NFC", document.text)
    assert done.documents == 50
    everything = np.concatenate(found)
    assert done.tokens == len(everything) == sum(done.source_tokens.values())
    assert done.token_counts.tolist() == np.bincount(everything, minlength=tokenizer.get_vocab_size()).tolist()
    assert sum(done.source_bytes.values()) == sum(len(document.text.encode()) for document in documents(50))
    # A shard is full with the document that reaches the limit, and not before.
    for shard in done.shards[:-1]:
        starts = np.load(tmp_path / "train" / shard["file"].replace(".npy", ".starts.npy"))
        assert starts[-1] < shard_tokens <= shard["tokens"]
    # The rows of each shard hold its tokens, each once.
    pieces, rows = (np.load(tmp_path / "train" / f"{name}.npy", mmap_mode="r") for name in ("pieces", "rows"))
    borders = np.cumsum([0, *(shard["rows"] for shard in done.shards)])
    assert rows[-1] == len(pieces)
    assert len(rows) == done.rows + 1
    for shard, first, end in zip(done.shards, borders, borders[1:], strict=False):
        places = [np.arange(start, start + length) for start, length in pieces[rows[first] : rows[end]].tolist()]
        assert sorted(np.concatenate(places)) == list(range(shard["tokens"]))
    assert done.packing() == {
        "rows": done.rows,
        "pieces_per_document": round(len(pieces) / 50, 4),
        "padding_share": round(1 - done.tokens / (32 * done.rows), 6),
        "loss_share": round(done.tokens / (32 * done.rows), 6),
        "lost_share": 0,
    }


def test_bytes_depend_on_documents_alone(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_documents(tokenizer, documents(50), tmp_path / "1", 300, 32)
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
    encode_documents(tokenizer, documents(50), tmp_path / "2", 300, 32)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "2").iterdir())
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_index_describes_the_shards(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    splits = {
        "train": encode_documents(tokenizer, documents(9), tmp_path / "train", 10**6, 32),
        "val": encode_documents(tokenizer, [], tmp_path / "val", 10**6, 32),
    }
    write_index(tmp_path, tokenizer, folder / "tokenizer.json", splits)
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["context_length"] == 32
    assert index["splits"]["val"] == {"tokens": 0, "documents": 0, "rows": 0, "shards": []}
    assert splits["val"].packing()["padding_share"] is None
    assert list((tmp_path / "val").iterdir()) == []
    train = index["splits"]["train"]
    assert (train["documents"], train["shards"][0]["file"]) == (9, "00000.npy")
    assert train["rows"] == train["shards"][0]["rows"] == splits["train"].rows
    assert (index["separator"], index["dtype"]) == (0, "uint16")
    assert index["tokenizer"] == hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def test_ids_are_as_small_as_the_vocabulary_allows() -> None:
    assert token_dtype(2**16) == np.uint16
    assert token_dtype(2**16 + 1) == np.uint32


def test_bytes_per_token(tokenizer: Tokenizer) -> None:
    digits = Document("s/1", "12345678", "u", "s", "MIT")
    assert measure_bytes_per_token(tokenizer, [digits, digits._replace(text="猫" * 8)]) == 32 / (8 + 24)
