"""Over a thousand damaged and hostile files through the real stage: no crash, no hang, each accounted for once."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.text.documents import read_table
from tests.sources import samples
from tests.text import project

Random = random.Random
ROUNDS = 8  # of each mutation and each kind of file
LIMITS = {"seconds": 20, "memory_mib": 1024, "document_mib": 128, "unpacked_mib": 64, "depth": 4}
SURROGATES = (b"\xed\xa0\x80", b"\xed\xb0\x80", b"\\ud800", b"\x00\xd8")


def truncate(data: bytes, chance: Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flip_bits(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 30))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert(what: bytes, data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + what + data[at:]


def insert_zeros(data: bytes, chance: Random) -> bytes:
    return insert(b"\0" * chance.choice((1, 4, 500)), data, chance)


def insert_surrogates(data: bytes, chance: Random) -> bytes:
    return insert(chance.choice(SURROGATES), data, chance)


def repeat_a_part(data: bytes, chance: Random) -> bytes:
    start = chance.randrange(len(data))
    return insert(data[start : start + 1000], data, chance)


def zipped(data: bytes) -> bytes:
    return samples.archive({"inside": data})


def nest(data: bytes, chance: Random) -> bytes:
    """In one to six layers of archives, the whole damaged now and then."""
    for _ in range(chance.randint(1, 6)):
        data = chance.choice((samples.gzipped, samples.zstd, zipped))(data)
    return chance.choice((truncate, flip_bits, lambda data, _: data, lambda data, _: data))(data, chance)


MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    truncate,
    flip_bits,
    insert_zeros,
    insert_surrogates,
    repeat_a_part,
    nest,
    lambda data, chance: chance.randbytes(len(data) % 5000),
]


def damaged(folder: Path, scratch: Path) -> int:
    """Fill `folder`; how many files are to be accounted for."""
    chance = Random(20260504)
    kinds = samples.every_kind(scratch)
    count = 0
    for name, data in kinds.items():
        extensions = [other.partition(".")[2] for other in kinds if other != name]
        for mutation in MUTATIONS:
            for _ in range(ROUNDS):
                renamed = name if chance.random() < 0.7 else f"{name}.{chance.choice(extensions)}"
                (folder / f"{count:04d}-{renamed}").write_bytes(mutation(data, chance))
                count += 1
        for extension in extensions[:: len(extensions) // 5]:  # whole, under the name of another kind
            (folder / f"{count:04d}.{extension}").write_bytes(data)
            count += 1
    return count


def hostile(folder: Path) -> int:
    """The same of files that were made to do harm."""
    long_line = b"word " * (20 * 2**20)  # 100 MiB without a line end
    words, zeros = long_line[: 24 * 2**20], b"\0" * (50 * 2**20)
    files = {
        "line.txt": long_line,
        "line.jsonl": b'{"text": "' + long_line + b'"}\n{"text": "after the long line"}\n',
        "bomb.zip": samples.archive({f"{number}.txt": words for number in range(4)}),
        "bomb.gz": samples.gzipped(zeros * 5),
        "bombs.zip": samples.archive({"a.zip": samples.archive({"b.zip": samples.archive({"c.txt": zeros})})}),
        "bomb.docx": samples.archive({"[Content_Types].xml": b"<x/>", "word/document.xml": zeros}),
        "laughs.html": b'<!DOCTYPE html [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><html><body><p>&b;</p></body></html>',
        "brackets.json": b"[" * 10**6,
        "parts.eml": b"Message-ID: <1>\nContent-Type: multipart/mixed; boundary=x\nTo: x\n\n" + b"--x\n" * 9999,
        "traversal.zip": samples.archive({"../../etc/passwd": b"one", "/abs.txt": b"two", "a\\b.txt": b"three"}),
        "names.zip": samples.archive({f"{number}.txt": b"a few words" for number in range(2000)}),
        "empty": b"",
        os.fsdecode(b"name-\xff\xfe.txt"): b"a name that is no UTF-8",
        "new\nline.txt": b"a name with a line end",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "link.txt").symlink_to("/etc/passwd")
    (folder / "linked").symlink_to("/etc", target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    (folder / ".hidden.txt").write_text("left out")
    return len(files) + 3


def collect(root: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, str]]:
    """The ids of the documents, and the reasons of the rejects by id."""
    monkeypatch.setenv("SMELT_WORKERS", str(workers))
    metrics = project.run(root, "collect", "s")
    out = root / "data/raw/s"
    documents = [row["id"] for batch in read_table(out / "documents", ["id"]) for row in batch.to_pylist()]
    rejects = [row for batch in read_table(out / "rejects", ["id", "reason"]) for row in batch.to_pylist()]
    assert (metrics["documents"], metrics["rejected"]) == (len(documents), len(rejects))
    assert metrics["reasons"] == Counter(row["reason"] for row in rejects)
    return documents, {row["id"]: row["reason"] for row in rejects}


def test_every_damaged_file_is_accounted_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project.make(tmp_path / "project", {"s": project.folder("s", text=None, limits=LIMITS)})
    folder = root / "data/s"
    folder.mkdir(parents=True)
    count = damaged(folder, tmp_path) + hostile(folder)
    assert count > 1000
    documents, rejects = collect(root, 2, monkeypatch)
    places = [*documents, *rejects]
    assert len(places) == len(set(places))
    names = {os.fsencode(path.name).decode("utf-8", "backslashreplace") for path in folder.iterdir()} - {".hidden.txt"}
    assert len(names) == count
    assert {re.split("[!#]", place.removeprefix("s/"))[0] for place in places} == names
    assert all(re.fullmatch("[a-z0-9_]+", reason) for reason in rejects.values())

    read = ["line.txt", "line.jsonl#1", "line.jsonl#2", "new\nline.txt", "name-\\xff\\xfe.txt"]
    assert {f"s/{place}" for place in read} <= set(documents)
    assert {place: rejects[f"s/{place}"] for place in ("link.txt", "linked", "pipe.txt", "bomb.gz", "empty")} == {
        "link.txt": "link_out_of_the_folder",
        "linked": "link_out_of_the_folder",
        "pipe.txt": "not_a_regular_file",
        "bomb.gz": "unknown_file_type",
        "empty": "empty",
    }
    assert sum(place.startswith("s/names.zip!") for place in documents) == 2000
    assert [rejects.get(f"s/bomb.zip!{number}.txt") for number in range(4)] == [None, None, *["unpacks_too_large"] * 2]


def test_damaged_files_give_the_same_bytes_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    damaged(made, tmp_path)
    results = []
    for workers in (1, 3):
        root = project.make(tmp_path / str(workers), {"s": project.folder("s", text=None, limits=LIMITS)})
        (root / "data/s").mkdir(parents=True)
        for path in sorted(made.iterdir())[::7]:
            (root / "data/s" / path.name).hardlink_to(path)
        collect(root, workers, monkeypatch)
        results.append({path.relative_to(root): path.read_bytes() for path in root.glob("data/raw/s/*/*.parquet")})
    assert results[0] == results[1]
