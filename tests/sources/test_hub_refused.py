"""Datasets of a hub that cannot be had: gated, moved, missing, hostile, or without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib.pipeline.errors import SmeltError
from tests.sources.hub_datasets import REPO, cached, collect, source, texts
from tests.sources.hub_server import HubServer


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
