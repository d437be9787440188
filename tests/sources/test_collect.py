import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lib.params.text import Mix
from lib.pipeline.errors import SmeltError
from lib.sources.limit import spread
from lib.sources.records import Item
from lib.text.documents import Document, read_documents, read_table
from lib.text.mix import split_of
from tests.sources.test_package import make_wheel
from tests.text import project


def packaged(root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A source over a wheel with these files, which lies in the cache already."""
    monkeypatch.setenv("SMELT_WHEELS", str(root / "wheels"))
    package = make_wheel(root / "wheels", files)
    source = project.folder("packaged", kind="package", input="data/wheels", package=package.package)
    del source["keep"], source["text"], source["limits"]
    return {**source, "sha256": package.sha256, "exclude": [], **changes}


def collect(root: Path, name: str, source: dict[str, Any]) -> tuple[list[Document], dict[str, str], dict[str, Any]]:
    """Documents, reasons of the rejects by id, and metrics."""
    metrics = project.run(project.make(root, {name: source}), "collect", name)
    out = root / "data/raw" / name
    rejects = [row for batch in read_table(out / "rejects") for row in batch.to_pylist()]
    return list(read_documents(out / "documents")), {row["id"]: row["reason"] for row in rejects}, metrics


def test_text_files_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = packaged(
        tmp_path,
        monkeypatch,
        {"t/long.txt": "\n\n".join(["A paragraph of some words."] * 60), "t/empty.txt": "", "t/x.py": ""},
        members=["t/*.txt"],
        format="text",
        split=500,
        unwrap=True,
    )
    documents, reasons, metrics = collect(tmp_path, "novel", source)
    assert [document.id for document in documents] == [f"novel/t/long.txt#{number}" for number in (1, 2, 3)]
    assert documents[0].uri == "pypi:some-texts==1.0/t/long.txt#1"
    assert (documents[0].source, documents[0].licence) == ("novel", "CC0-1.0")
    assert reasons == {"novel/t/empty.txt": "empty"}
    size = sum(len(document.text.encode()) for document in documents)
    assert metrics == {"documents": 3, "bytes": size, "rejected": 1, "reasons": {"empty": 1}}


def test_subtracted_records_are_rejected_and_the_others_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"passage": "P1", "question": "one?", "label": True},
        {"passage": "P1", "question": "two?", "label": False},
        {"passage": "P2", "question": "held out?", "label": True},
    ]
    source = packaged(
        tmp_path,
        monkeypatch,
        {
            "q/all.jsonl": "\n".join(map(json.dumps, lines)),
            "q/dev.jsonl": json.dumps({"question": "held out?", "answer": "True"}),
        },
        members=["q/all.jsonl"],
        format="jsonl",
        records="values",
        heading=[],
        text="{passage}",
        keep=["question", "label"],
        subtract={"field": "question", "members": ["q/dev.jsonl"]},
    )
    documents, reasons, _ = collect(tmp_path, "q", source)
    assert [(document.id, document.text) for document in documents] == [("q/q/all.jsonl#1", "P1")]
    assert documents[0].kept == [{"question": "one?", "label": True}, {"question": "two?", "label": False}]
    assert reasons == {"q/q/all.jsonl#3": "subtracted"}


def test_subtracting_by_a_field_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = packaged(
        tmp_path,
        monkeypatch,
        {"all.jsonl": '{"text": "x"}', "dev.jsonl": '{"query": "x"}'},
        members=["all.jsonl"],
        format="jsonl",
        records="values",
        heading=[],
        text="{text}",
        keep=[],
        subtract={"field": "question", "members": ["dev.jsonl"]},
    )
    with pytest.raises(SmeltError, match="has the field 'question'"):
        collect(tmp_path, "q", source)


def test_an_empty_folder_is_said_and_makes_a_valid_empty_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/internal").mkdir(parents=True)
    documents, reasons, metrics = collect(tmp_path, "internal", project.folder("internal"))
    assert (documents, reasons) == ([], {})
    assert metrics == {"documents": 0, "bytes": 0, "rejected": 0, "reasons": {}}
    assert "data/internal is empty: put your documents there" in capsys.readouterr().err


def test_a_bad_file_of_ones_own_is_named_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/internal").mkdir(parents=True)
    (tmp_path / "data/internal/photo.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0")
    (tmp_path / "data/internal/good.txt").write_text("Cheese")
    documents, reasons, metrics = collect(tmp_path, "internal", project.folder("internal"))
    assert [document.id for document in documents] == ["internal/good.txt"]
    assert reasons == {"internal/photo.txt": "unknown_file_type"}
    assert metrics["documents"] + metrics["rejected"] == 2
    assert "rejected data/internal/photo.txt: unknown_file_type" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_stops_the_stage_and_keeps_the_old_output(tmp_path: Path) -> None:
    (tmp_path / "data/internal").mkdir(parents=True)
    (tmp_path / "data/internal/good.txt").write_text("Cheese")
    collect(tmp_path, "internal", project.folder("internal"))
    before = {path: path.read_bytes() for path in (tmp_path / "data/raw").rglob("*.parquet")}
    (tmp_path / "data/internal/gone.txt").symlink_to("/nowhere/at/all")
    with pytest.raises(SmeltError, match=r"gone\.txt"):
        collect(tmp_path, "internal", project.folder("internal"))
    assert {path: path.read_bytes() for path in (tmp_path / "data/raw").rglob("*.parquet")} == before
    assert [path for path in (tmp_path / "data/raw").iterdir() if path.name.startswith(".")] == []


def items(numbers: list[int]) -> list[Item]:
    return [(Document(f"s/{number}", "", "", "s", "MIT"), None) for number in numbers]


def test_a_limit_takes_from_everywhere_and_keeps_what_a_smaller_one_took() -> None:
    small, large = spread(items(list(range(1000))), 50), spread(items(list(range(1000))), 100)
    assert len(small) == 50
    assert set(small) < set(large)
    places = [int(document.id[2:]) for document, _ in small]
    assert places == sorted(places)
    assert min(places) < 200
    assert max(places) > 800
    assert set(spread(items(list(range(999, -1, -1))), 50)) == set(small)


def test_a_limit_has_documents_of_every_split() -> None:
    """The split is a hash of the id as well: the same hash here would take test documents only."""
    splits = Counter(
        split_of(document.id, Mix(tokens=1, val=0.1, test=0.1)) for document, _ in spread(items(list(range(5000))), 500)
    )
    assert splits["train"] == pytest.approx(400, abs=40)
    assert splits["test"] == pytest.approx(50, abs=25)


def test_a_limit_keeps_all_rejects() -> None:
    reject = (Document("s/bad", "", "", "s", "MIT"), "empty")
    assert reject in spread([*items([1, 2, 3]), reject], 1)


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        root = tmp_path / name
        (root / "data/internal").mkdir(parents=True)
        for number in range(20):
            file = root / f"data/internal/{number}.txt"
            file.write_text(f"Document {number}")
            os.utime(file, (number, number))
        collect(root, "internal", project.folder("internal", limit=10))
        outputs.append((root / "data/raw/internal/documents/00000.parquet").read_bytes())
    assert outputs[0] == outputs[1]
