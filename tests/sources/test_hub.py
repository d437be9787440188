"""The hub source against a stand-in for the hub: a real HTTP server on this machine, serving real parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sources.hub_datasets import REPO, cached, collect, parquet, row, source, texts
from tests.sources.hub_server import HubServer


def test_the_whole_of_a_config_in_its_order_with_provenance(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server)
    documents, rejects, metrics = collect(tmp_path, source(commit, keep=["language"], licence_column="licence"))
    assert [document.text for document in documents] == [row(number)["text"] for number in range(600)]
    assert documents[301].id == "hub/sample/001.parquet#2"
    assert documents[301].uri == f"hf://datasets/team/texts@{commit}/sample/001.parquet#2"
    assert documents[301].kept == [{"language": "en"}]
    assert [document.licence for document in documents[:2]] == ["CC0-1.0", "MIT"]  # its own where it has one
    assert rejects == []
    assert metrics["documents"] == 600
    files = server.commits[REPO][commit]
    kept = cached(tmp_path, commit)
    assert {name: kept[name] for name in ("sample/000.parquet", "sample/001.parquet")} == {
        name: files[name] for name in ("sample/000.parquet", "sample/001.parquet")
    }
    assert not any(name.endswith((".partial", ".tail", ".etag")) for name in kept)
    assert server.sent("data/x/0.parquet") == 0  # of the other config


def test_the_filter_compares_columns_and_rejects_are_counted(tmp_path: Path, server: HubServer) -> None:
    filters = [
        {"column": "language", "op": "==", "value": "en"},
        {"column": "score", "op": ">=", "value": 3},
        {"column": "licence", "op": "in", "value": ["MIT", "ISC"]},
        {"column": "added", "op": "!=", "value": "today"},
    ]
    documents, rejects, metrics = collect(tmp_path, source(texts(server), filter=filters))
    wanted = [n for n in range(600) if n % 5 and n >= 30 and n % 2]
    assert [document.text for document in documents] == [row(number)["text"] for number in wanted]
    assert metrics["documents"] + metrics["rejected"] == 600
    assert {reason for _, reason in rejects} == {"filtered"}


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("==", 3, [30]),
        ("!=", 3, [29, 31]),
        ("<", 3, [29]),
        ("<=", 3.0, [29, 30]),
        (">", 3, [31]),
        (">=", 3, [30, 31]),
        ("in", [2.9, 3.1], [29, 31]),
        ("not in", [2.9, 3.1], [30]),
    ],
)
def test_each_comparison(tmp_path: Path, server: HubServer, op: str, value: Any, expected: list[int]) -> None:
    commit = server.add(REPO, {"data/train-00000-of-00001.parquet": parquet([row(n) for n in (29, 30, 31)])})
    settings = source(commit, config=None, filter=[{"column": "score", "op": op, "value": value}])
    documents, _, _ = collect(tmp_path, settings)
    assert [document.text for document in documents] == [row(number)["text"] for number in expected]


def test_a_limit_takes_the_first_documents_and_fetches_no_more_than_it_needs(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server, shards=2, rows=3000, words=200)
    size = len(server.commits[REPO][commit]["sample/000.parquet"])
    assert size > 5e6
    documents, _, _ = collect(tmp_path, source(commit, limit=7))
    assert [document.text for document in documents] == [row(number, 200)["text"] for number in range(7)]
    kept = cached(tmp_path, commit)
    assert len(kept["sample/000.parquet.partial"]) + len(kept["sample/000.parquet.tail"]) < size / 2
    assert not any(name.startswith("sample/001") for name in kept)
    before = server.sent("sample/000.parquet")
    more, _, _ = collect(tmp_path, source(commit, limit=3001))
    assert [document.text for document in more] == [row(number, 200)["text"] for number in range(3001)]
    assert cached(tmp_path, commit)["sample/000.parquet"] == server.commits[REPO][commit]["sample/000.parquet"]
    assert server.sent("sample/000.parquet") - before < size  # what was there was not fetched again


def test_a_limit_in_bytes_cuts_in_the_order_of_the_set(tmp_path: Path, server: HubServer) -> None:
    documents, _, metrics = collect(tmp_path, source(texts(server), max_mib=0.05))
    sizes = [len(row(number)["text"].encode()) for number in range(600)]
    fit = next(count for count in range(600) if sum(sizes[: count + 1]) > 0.05 * 2**20)
    assert len(documents) == fit
    assert metrics["bytes"] == sum(sizes[:fit])


def test_a_text_may_be_a_template_or_the_whole_row(tmp_path: Path, server: HubServer) -> None:
    commit = server.add(REPO, {"train.csv": b'title,body\nOne,"First, and ""best"""\nTwo,Second\nThree\n'})
    documents, rejects, _ = collect(tmp_path, source(commit, config=None, text="{title}: {body}"))
    assert [document.text for document in documents] == ['One: First, and "best"', "Two: Second"]
    assert rejects == [("hub/train.csv#3", "wrong_number_of_fields")]
    documents, _, _ = collect(tmp_path, source(commit, config=None, text=None))
    assert documents[1].text == "title: Two\nbody: Second"


def test_what_stands_after_the_last_record_is_kept_as_well(tmp_path: Path, server: HubServer) -> None:
    content = b'[{"text": "one"}]' + b" " * 3_000_000
    commit = server.add(REPO, {"train.json": content})
    assert collect(tmp_path, source(commit, config=None))[2]["documents"] == 1
    assert cached(tmp_path, commit)["train.json"] == content


def test_two_runs_give_the_same_bytes_cached_or_not(tmp_path: Path, server: HubServer) -> None:
    commit, outputs = texts(server), []
    for name in ("one", "one", "two"):
        collect(tmp_path / name, source(commit, keep=["score", "language"]))
        outputs.append((tmp_path / name / "data/raw/hub/documents/00000.parquet").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


# ----------------------------------------------------------------------------------------------------------------------
# Chat


def test_turns_become_messages_and_text(tmp_path: Path, server: HubServer) -> None:
    turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]
    lines = [{"conversations": turns, "source": "a"}, {"conversations": [{"from": "human", "value": "Alone"}]}]
    for name, content in {
        "train.jsonl": "\n".join(map(json.dumps, lines)).encode(),
        "train.json": json.dumps(lines, indent=2).encode(),
        "train.parquet": parquet([{"source": None, **line} for line in lines]),
    }.items():
        commit = server.add(REPO, {name: content})
        settings = source(commit, config=None, text=None, messages="conversations", keep=["source"])
        documents, rejects, _ = collect(tmp_path / name, settings)
        assert [document.text for document in documents] == ["User: Hello?\n\nAssistant: Hi."]
        messages = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
        assert documents[0].kept == [{"messages": messages, "source": "a"}]
        assert rejects == [(f"hub/{name}#2", "no_answer")]


def test_a_threaded_table_gives_its_best_threads_and_accounts_for_every_message(
    tmp_path: Path, server: HubServer
) -> None:
    def message(id_: str, parent: str | None, role: str, text: str, rank: int | None = None, lang: str = "en") -> dict:
        return {"message_id": id_, "parent_id": parent, "role": role, "text": text, "rank": rank, "lang": lang}

    table = [
        message("a", None, "prompter", "How?"),
        message("b", "a", "assistant", "Badly.", 1),
        message("c", "b", "prompter", "Why?"),
        message("d", "a", "assistant", "Well.", 0),
        message("e", "d", "prompter", "Thanks."),
        message("f", "e", "assistant", "Gern.", lang="de"),
        message("g", None, "prompter", "Wie?", lang="de"),
        message("h", "g", "assistant", "So.", lang="en"),
        message("i", None, "prompter", "Nobody answers."),
    ]
    commit = server.add(REPO, {"data/train-00000-of-00001.parquet": parquet(table)})
    columns = {"id": "message_id", "parent": "parent_id", "role": "role", "content": "text", "rank": "rank"}
    english = [{"column": "lang", "op": "==", "value": "en"}]
    settings = source(commit, config=None, text=None, messages=columns, filter=english, keep=["lang"])
    documents, rejects, _ = collect(tmp_path, settings)
    assert [document.text for document in documents] == ["User: How?\n\nAssistant: Well.\n\nUser: Thanks."]
    assert [message["content"] for message in documents[0].kept[0]["messages"]] == ["How?", "Well.", "Thanks."]
    ids = {f"hub/data/train-00000-of-00001.parquet#{n + 1}": one["message_id"] for n, one in enumerate(table)}
    assert {ids[id_]: reason for id_, reason in rejects} == {
        "b": "not_the_best_reply",
        "c": "not_the_best_reply",
        "f": "filtered",
        "g": "filtered",
        "h": "parent_is_missing",
        "i": "no_answer",
    }
    assert len(rejects) + len(documents[0].kept[0]["messages"]) == len(table)
