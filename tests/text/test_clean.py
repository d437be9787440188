import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lib.params.clean import CleanRules
from lib.params.load import ParamsError, load, read_yaml
from lib.pipeline.run import Run
from lib.text import cleaning
from lib.text import documents as storage
from lib.text.cleaning import STEPS, clean_shard, length_class, merge
from lib.text.documents import (
    Document,
    DocumentWriter,
    ShardWriter,
    read_documents,
    read_table,
    shards,
    write_documents,
)
from tests.text import corpus, project

GOOD = "The boiler on the third floor is inspected twice a year, and the report of the engineer is kept for ten years."
PARAMS = load(project.REPOSITORY / "params.yaml")


def raw(root: Path, texts: dict[str, str]) -> list[Document]:
    written = [Document(f"internal/{name}", text, f"u/{name}", "internal", "MIT") for name, text in texts.items()]
    write_documents(root / "data/raw/internal/documents", written)
    return written


def rejects(root: Path) -> dict[str, str]:
    rows = (row for batch in read_table(root / "data/clean/internal/rejects") for row in batch.to_pylist())
    return {row["id"]: row["reason"] for row in rows}


def check(tally: dict[str, Any]) -> None:
    """Everything adds up: over all, from step to step, and within each."""
    assert tally["documents_in"] == tally["documents_out"] + tally["rejected"]
    assert tally["rejected"] == sum(tally["reasons"].values())
    documents, size = tally["documents_in"], tally["bytes_in"]
    reasons: dict[str, int] = {}
    for step in tally["steps"].values():
        assert (step["documents_in"], step["bytes_in"]) == (documents, size)
        assert step["documents_in"] == step["documents_out"] + sum(step["reasons"].values())
        documents, size = step["documents_out"], step["bytes_out"]
        for reason, count in step["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    assert (documents, size) == (tally["documents_out"], tally["bytes_out"])
    assert reasons == tally["reasons"]
    assert sum(tally["lengths"].values()) == tally["documents_out"]


def test_documents_in_are_documents_out_and_rejects(tmp_path: Path) -> None:
    texts = {
        "good": GOOD + "\r\n",
        "short": "Too few words.",
        "figures": "12 34 56 78 " * 10,
        "blank": "\u200b \n",
        "german": "Der Kessel im dritten Stock wird zweimal im Jahr geprüft, und der Bericht wird zehn Jahre lang im "
        "Büro des Hauses aufbewahrt, damit ihn jeder lesen kann.",
        "spam": "buy now " * 40,
    }
    project.make(tmp_path, {"internal": project.folder("internal")})
    written = raw(tmp_path, texts)
    metrics = project.run(tmp_path, "clean", "internal")
    assert list(read_documents(tmp_path / "data/clean/internal/documents")) == [written[0]._replace(text=GOOD)]
    assert rejects(tmp_path) == {
        "internal/short": "min_words",
        "internal/figures": "min_mean_word_length",
        "internal/blank": "empty",
        "internal/german": "language",
        "internal/spam": "gopher_top_2_gram",
    }
    check(metrics)
    assert metrics["documents_in"] == 6
    assert metrics["bytes_in"] == sum(len(text.encode()) for text in texts.values())
    assert metrics["bytes_out"] == len(GOOD)
    assert metrics["languages"] == {"de": 1, "en": 1}  # of those that got so far
    assert metrics["lengths"] == {"128": 1}
    assert metrics["steps"]["normalise"]["removed"] == {"control_characters": 1, "whitespace": 6}
    samples = json.loads((tmp_path / "reports/clean/internal/samples.json").read_text())
    assert {reason: [sample["id"] for sample in drawn] for reason, drawn in samples.items()} == {
        reason: [document] for document, reason in rejects(tmp_path).items()
    }
    assert samples["language"] == [{"id": "internal/german", "uri": "u/german", "text": texts["german"][:300]}]


def test_an_empty_source_stays_empty(tmp_path: Path) -> None:
    project.make(tmp_path, {"internal": project.folder("internal")})
    with DocumentWriter(tmp_path / "data/raw/internal/documents"):
        pass
    metrics = project.run(tmp_path, "clean", "internal")
    assert metrics["documents_out"] == 0
    check(metrics)
    assert list(read_documents(tmp_path / "data/clean/internal/documents")) == []


@pytest.mark.parametrize("name", sorted(PARAMS.clean))
def test_every_rule_set_adds_up_on_all_kinds_of_documents(name: str, tmp_path: Path) -> None:
    texts = dict(enumerate(["", " \n", *corpus.documents()]))
    raw(tmp_path, {str(number): text for number, text in texts.items()})
    (shard,) = shards(tmp_path / "data/raw/internal/documents")
    tally = clean_shard(shard, tmp_path / "kept.parquet", tmp_path / "rejects.parquet", PARAMS.clean[name])
    check(tally)
    assert tally["documents_in"] == len(texts)
    assert 20 < tally["documents_out"] < len(texts)
    assert tally["reasons"]["empty"] >= 2
    kept = [document.id for document in read_documents(tmp_path / "kept.parquet")]
    dropped = [document.id for document in read_documents(tmp_path / "rejects.parquet")]
    assert sorted(kept + dropped) == sorted(f"internal/{number}" for number in texts)
    again = clean_shard(
        tmp_path / "kept.parquet", tmp_path / "twice.parquet", tmp_path / "none.parquet", PARAMS.clean[name]
    )
    if PARAMS.clean[name].c4 is None:  # C4 takes lines out, and what is left may break a rule before it
        assert again["documents_out"] == again["documents_in"], again["reasons"]
        assert list(read_documents(tmp_path / "twice.parquet")) == list(read_documents(tmp_path / "kept.parquet"))


def test_shards_add_up_in_any_order_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {str(number): text for number, text in enumerate(corpus.documents())}
    raw(tmp_path, texts)
    whole, rules = clean_shard(
        *(tmp_path / name for name in ("data/raw/internal/documents/00000.parquet", "a.parquet", "b.parquet")),
        PARAMS.clean["web"],
    ), PARAMS.clean["web"]  # fmt: skip
    monkeypatch.setattr(storage, "SHARD_BYTES", 100_000)
    written = [Document(f"internal/{name}", text, f"u/{name}", "internal", "MIT") for name, text in texts.items()]
    write_documents(tmp_path / "parts", written)
    found = shards(tmp_path / "parts")
    assert len(found) > 3
    parts = [clean_shard(path, tmp_path / "out" / path.name, tmp_path / "rejects" / path.name, rules) for path in found]
    assert merge(parts) == merge(parts[::-1]) == merge([whole])
    assert json.loads(json.dumps(parts)) == parts
    assert list(read_documents(tmp_path / "out")) == list(read_documents(tmp_path / "a.parquet"))
    assert max(len(drawn) for drawn in merge(parts)["samples"].values()) == 10


def test_a_shard_s_work_can_be_sent_to_another_process() -> None:
    function, rules = pickle.loads(pickle.dumps((clean_shard, PARAMS.clean["web"])))
    assert function is clean_shard
    assert rules == PARAMS.clean["web"]


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    raw(tmp_path, {"1": GOOD})
    (shard,) = shards(tmp_path / "data/raw/internal/documents")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(Exception, match=r"(?i)parquet"):
        clean_shard(shard, tmp_path / "out" / "0.parquet", tmp_path / "out" / "1.parquet", PARAMS.clean["own"])
    assert list((tmp_path / "out").iterdir()) == []


def test_steps_are_the_rules_of_params(tmp_path: Path) -> None:
    assert list(STEPS) == list(read_yaml(project.REPOSITORY / "params.yaml")["clean"]["web"])
    assert set(STEPS) == set(CleanRules.model_fields)
    for name, step in STEPS.items():
        assert step.name == name


@pytest.mark.parametrize(
    ("step", "value", "message"),
    [
        ("heuristics", {"min_words": 30, "max_words": 20}, "heuristics.min_words is above heuristics.max_words"),
        ("language", {"allow": ["english"], "min_score": 0.5}, "language.allow"),
        ("block_list", {"phrases": []}, "block_list.phrases"),
        ("fineweb", {"line_punct_thr": 0.1}, "fineweb.short_line_thr"),
        ("c4", {"min_num_sentence": 1}, "c4.min_num_sentence: unknown parameter"),
    ],
)
def test_rules_that_cannot_be_are_named(tmp_path: Path, step: str, value: dict[str, Any], message: str) -> None:
    def change(params: dict[str, Any]) -> None:
        params["clean"]["prose"][step] = (params["clean"]["prose"][step] or {} if step == "heuristics" else {}) | value

    project.make(tmp_path, {"internal": project.folder("internal")}, change)
    with pytest.raises(ParamsError, match=message.replace(".", r"\.")):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize(("length", "name"), [(1, "1"), (2, "2"), (3, "4"), (64, "64"), (65, "128")])
def test_a_length_falls_into_its_power_of_two(length: int, name: str) -> None:
    assert length_class("x" * length) == name


def sharded(root: Path) -> None:
    """A source of three shards and an empty one, in which every third document is too short."""
    project.make(root, {"internal": project.folder("internal")})
    for shard, count in enumerate([40, 7, 0, 25]):
        with ShardWriter(root / f"data/raw/internal/documents/{shard:05d}.parquet") as writer:
            for n in range(count):
                text = f"{GOOD} {shard}-{n}" if n % 3 else f"{n}"
                writer.write(Document(f"internal/{shard}/{n}", text, "u", "internal", "MIT"))


def written(root: Path) -> dict[str, bytes]:
    folder = root / "data/clean/internal"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_shards_keep_their_numbers_whoever_cleans_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    for workers in ("1", "2"):
        monkeypatch.setenv("SMELT_WORKERS", workers)
        sharded(tmp_path / workers)
        metrics = project.run(tmp_path / workers, "clean", "internal")
        found.append((metrics, written(tmp_path / workers)))
    assert found[0] == found[1]
    metrics, files = found[0]
    assert list(files) == [f"{kind}/0000{n}.parquet" for kind in ("documents", "rejects") for n in range(4)]
    assert (metrics["documents_in"], metrics["rejected"]) == (72, 14 + 3 + 9)


def test_a_run_stopped_at_its_end_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    sharded(tmp_path / "whole")
    expected = project.run(tmp_path / "whole", "clean", "internal")
    sharded(tmp_path / "stopped")

    def stopped(run: Run, record: dict) -> None:
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "publish", stopped)
        with pytest.raises(SystemExit):
            project.run(tmp_path / "stopped", "clean", "internal")
    assert not written(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(cleaning, "chain", None)  # no shard is cleaned again
        assert project.run(tmp_path / "stopped", "clean", "internal") == expected
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
