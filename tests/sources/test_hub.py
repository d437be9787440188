"""The hub source against a stand-in for the hub: a real HTTP server on this machine, serving real parquet."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.pipeline.errors import SmeltError
from lib.sources import hub_client
from lib.sources.hub_client import Hub
from lib.sources.hub_file import HubFile
from lib.text.documents import Document, read_documents, read_table
from tests.sources.hub_server import HubServer
from tests.text import project

REPO = "team/texts"
README = b"""---
license: odc-by
configs:
- config_name: default
  data_files: data/*/*
- config_name: sample
  data_files:
  - split: train
    path: sample/*
---
# Texts
"""


def parquet(rows: list[dict[str, Any]], group: int = 100) -> bytes:
    """Uncompressed, so that its size is that of its texts."""
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=group, compression="none", use_dictionary=False)
    return stream.getvalue()


def row(number: int, words: int = 20) -> dict[str, Any]:
    return {
        "text": f"Text number {number}. " + f"word{number} " * words,
        "language": "de" if number % 5 == 0 else "en",
        "score": number / 10,
        "licence": "MIT" if number % 2 else None,
        "added": None,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01, 0.01))
    for name in ("HF_TOKEN", "SMELT_HUB", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def texts(server: HubServer, shards: int = 2, rows: int = 300, **settings: int) -> str:
    """A dataset of `shards` files with `rows` rows each, numbered through; its commit."""
    files = {
        f"sample/{shard:03d}.parquet": parquet([row(shard * rows + number, **settings) for number in range(rows)])
        for shard in range(shards)
    }
    return server.add(REPO, {"README.md": README, "data/x/0.parquet": parquet([row(0)]), **files})


def source(revision: str | None, **changes: Any) -> dict[str, Any]:
    settings = project.folder(
        "hub",
        **{
            "kind": "hub",
            "repo": REPO,
            "revision": revision,
            "config": "sample",
            "split": "train",
            "messages": None,
            "licence_column": None,
            "filter": [],
            "max_mib": None,
            **changes,
        },
    )
    del settings["limits"]
    return settings


def collect(root: Path, settings: dict[str, Any]) -> tuple[list[Document], list[tuple[str, str]], dict[str, Any]]:
    """Documents, (id, reason) of the rejects, and metrics."""
    metrics = project.run(project.make(root, {"hub": settings}), "collect", "hub")
    out = root / "data/raw/hub"
    rejects = [row for batch in read_table(out / "rejects") for row in batch.to_pylist()]
    return list(read_documents(out / "documents")), [(row["id"], row["reason"]) for row in rejects], metrics


def cached(root: Path, revision: str) -> dict[str, bytes]:
    folder = root / "data/hub/team--texts" / revision
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------------------------
# What comes out


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


# ----------------------------------------------------------------------------------------------------------------------
# Interrupted


def test_killed_in_the_middle_it_goes_on_at_the_byte_where_it_was(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server, shards=2, rows=1500, words=200)
    size = {name: len(content) for name, content in server.commits[REPO][commit].items()}
    root = project.make(tmp_path / "killed", {"hub": source(commit)})
    server.seconds_per_chunk = 0.01
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.collect", "hub"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(project.REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    second = root / "data/hub/team--texts" / commit / "sample/001.parquet.partial"
    until = time.monotonic() + 30
    while not (second.exists() and second.stat().st_size > size["sample/001.parquet"] / 4):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = second.stat().st_size
    assert stored < size["sample/001.parquet"]
    assert not (root / "data/raw").exists() or not any((root / "data/raw/hub").glob("*"))
    server.seconds_per_chunk = 0.0
    server.requests.clear()
    documents, _, _ = collect(root, source(commit))
    assert len(documents) == 3000
    assert server.sent("sample/000.parquet") == 0
    assert server.sent("sample/001.parquet") == size["sample/001.parquet"] - stored
    assert [one.range for one in server.requests] == [f"bytes={stored}-"] * 2  # the hub, and its storage
    collect(tmp_path / "whole", source(commit))
    for path in ("documents/00000.parquet", "rejects/00000.parquet"):
        assert (root / "data/raw/hub" / path).read_bytes() == (tmp_path / "whole/data/raw/hub" / path).read_bytes()


def test_two_runs_that_fetch_one_dataset_follow_each_other(tmp_path: Path, server: HubServer) -> None:
    commit, said = texts(server), []

    def fetch() -> None:
        with Hub(REPO, commit, tmp_path, said.append) as hub:
            said.append(len(hub.files()))

    with Hub(REPO, commit, tmp_path, print):
        second = threading.Thread(target=fetch)
        second.start()
        until = time.monotonic() + 10
        while not said and time.monotonic() < until:
            time.sleep(0.005)
        assert said == ["waiting for another run that fetches team/texts"]
        time.sleep(0.1)
        assert server.requests == []
    second.join(10)
    assert said[1:] == [4]


def test_a_server_that_fails_and_recovers(
    tmp_path: Path, server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = texts(server)
    server.failures = [500, 503, None, 429, None, None, None, "drop", 502]
    server.retry_after = "0"
    documents, _, _ = collect(tmp_path, source(commit))
    assert [document.text for document in documents] == [row(number)["text"] for number in range(600)]
    said = capsys.readouterr().err
    assert "HTTP 500; trying again" in said
    assert "HTTP 429; trying again in 0 s" in said
    assert server.failures == []


def test_attempts_are_counted_anew_after_every_byte(tmp_path: Path, server: HubServer) -> None:
    content = bytes(range(256)) * 20_000
    commit = server.add(REPO, {"one.bin": content})
    with Hub(REPO, commit, tmp_path, print) as hub, HubFile(hub, "one.bin") as stream:
        server.failures = ["drop"] * 10  # each gives half of what is left, and there are 3 attempts without a byte
        stream.seek(-3, io.SEEK_END)
        assert stream.read() == content[-3:]
        assert server.failures == []
        stream.seek(0)
        assert stream.read() == content
    assert server.sent("one.bin") == len(content) + 1  # one for its size


def test_a_server_that_does_not_recover(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server)
    collect(tmp_path, source(commit, limit=1))
    server.failures = [503] * 50
    with pytest.raises(SmeltError, match=r"cannot fetch sample/001\.parquet of team/texts: HTTP 503") as error:
        collect(tmp_path, source(commit))
    assert "goes on where it was" in str(error.value)
    server.failures = []
    assert collect(tmp_path, source(commit))[2]["documents"] == 600


def test_a_mirror_without_ranges_still_works(tmp_path: Path, server: HubServer) -> None:
    server.ranges = False
    commit = texts(server)
    assert collect(tmp_path, source(commit, limit=3))[2]["documents"] == 3
    assert collect(tmp_path, source(commit))[2]["documents"] == 600


def test_a_file_that_is_not_what_its_hash_says_is_not_kept(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server, rows=3000, words=200)
    collect(tmp_path, source(commit, limit=1))
    path = tmp_path / "data/hub/team--texts" / commit / "sample/000.parquet.partial"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SmeltError, match=r"sample/000\.parquet is damaged"):
        collect(tmp_path, source(commit))
    assert collect(tmp_path, source(commit))[2]["documents"] == 6000


# ----------------------------------------------------------------------------------------------------------------------
# Refused


def test_a_gated_dataset_wants_a_token_from_the_environment(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = texts(server)
    server.gated[REPO] = "hf_right"
    (tmp_path / "token").write_text("hf_right")  # what a login leaves in the user's home is not looked at
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(SmeltError, match=r"is gated.*no token \(HF_TOKEN is not set\)"):
        collect(tmp_path, source(commit))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SmeltError, match=r"is gated.*the token in HF_TOKEN") as error:
        collect(tmp_path, source(commit))
    assert "hf_wrong" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert collect(tmp_path, source(commit))[2]["documents"] == 600
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "token")
    assert b"hf_right" not in stored
    assert any(one.path.startswith("/storage") for one in server.requests)  # which asserts that it gets no token


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "0" * 40}, r"has no commit 0{40} \(any more\).*`make pin`"),
        ({"revision": None}, r"sources\.hub\.revision is null: `make pin`"),
        ({"repo": "team/nothing"}, "no dataset team/nothing, or it is private"),
        ({"config": "nope"}, "no config 'nope'; set config to one of: default, sample"),
        ({"split": "test"}, "no split 'test' in config sample; there are: train"),
        ({"text": "{title}\n{text}"}, "has no column 'title'; it has: added, language, licence, score, text"),
        ({"keep": ["url"]}, "has no column 'url'"),
        ({"licence_column": "license"}, "has no column 'license'"),
        ({"filter": [{"column": "lang", "op": "==", "value": "en"}]}, "has no column 'lang'"),
        ({"filter": [{"column": "language", "op": ">", "value": 3}]}, "two numbers or two texts"),
        ({"text": None, "messages": "messages"}, "has no column 'messages'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, server: HubServer, changes: dict[str, Any], message: str) -> None:
    commit = texts(server)
    with pytest.raises(SmeltError, match=message):
        collect(tmp_path, source(commit) | changes)
    assert not any((tmp_path / "data/raw").glob("*"))


def test_a_revision_that_moved_is_refused(tmp_path: Path, server: HubServer) -> None:
    commit, other = texts(server), "f" * 40
    server.answers[commit] = other
    with pytest.raises(SmeltError, match=f"pins commit {commit}, and the hub answers with commit {other}"):
        collect(tmp_path, source(commit))
    assert cached(tmp_path, commit).keys() == {".lock"}
    server.answers.clear()
    collect(tmp_path, source(commit, limit=1))
    server.answers[commit] = other  # and for a file
    with pytest.raises(SmeltError, match=f"answers with commit {other}"):
        collect(tmp_path, source(commit))


def test_a_missing_column_of_json_lines_is_found_by_looking(tmp_path: Path, server: HubServer) -> None:
    commit = server.add(REPO, {"train.jsonl": b'{"body": "one"}\n{"body": "two", "title": "T"}\n'})
    with pytest.raises(SmeltError, match="has no column 'text'; it has: body, title"):
        collect(tmp_path, source(commit, config=None))
    documents, rejects, _ = collect(tmp_path, source(commit, config=None, text="{title}"))
    assert [document.text for document in documents] == ["T"]
    assert rejects == [("hub/train.jsonl#1", "missing_field")]


def test_a_dataset_made_by_a_script_is_refused(tmp_path: Path, server: HubServer) -> None:
    commit = server.add(REPO, {"texts.py": b"import os", "README.md": b"# no yaml"})
    with pytest.raises(SmeltError, match=r"made by the script texts\.py, and Smelt runs no code of a dataset"):
        collect(tmp_path, source(commit, config=None))


def test_a_path_that_leaves_the_cache_is_refused(tmp_path: Path, server: HubServer) -> None:
    commit = server.add(REPO, {"../../evil.jsonl": b'{"text": "x"}'})
    with pytest.raises(SmeltError, match="points outside"):
        collect(tmp_path, source(commit, config=None))


# ----------------------------------------------------------------------------------------------------------------------
# Without a network


def test_no_network_and_nothing_cached(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = texts(server)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: refuses
    with pytest.raises(SmeltError, match="cannot fetch the list of files of team/texts: ConnectError") as error:
        collect(tmp_path, source(commit))
    assert str(tmp_path / "data/hub/team--texts" / commit) in str(error.value)


def test_no_network_and_everything_cached_or_put_there_by_hand(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = texts(server)
    collect(tmp_path / "cached", source(commit))
    collect(tmp_path / "cut", source(commit, limit=310))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert collect(tmp_path / "cut", source(commit, limit=310, text="{language}"))[2]["documents"] == 310
    filters = [{"column": "language", "op": "==", "value": "de"}]
    assert collect(tmp_path / "cached", source(commit, filter=filters))[2]["documents"] == 120
    monkeypatch.setenv("SMELT_HUB", str(tmp_path / "elsewhere"))
    folder = tmp_path / "elsewhere/team--texts" / commit
    for name, content in server.commits[REPO][commit].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert collect(tmp_path / "by-hand", source(commit))[2]["documents"] == 600
