"""Fetching from a hub that fails, from two runs at once, and by a run that is killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources.hub_client import Hub
from lib.sources.hub_file import HubFile
from tests.sources.hub_datasets import REPO, collect, row, source, texts
from tests.sources.hub_server import HubServer
from tests.text import project


def test_killed_in_the_middle_it_goes_on_at_the_byte_where_it_was(tmp_path: Path, server: HubServer) -> None:
    commit = texts(server, shards=2, rows=1500, words=200)
    size = {name: len(content) for name, content in server.commits[REPO][commit].items()}
    root = project.make(tmp_path / "killed", {"hub": source(commit)})
    server.seconds_per_chunk = 0.01
    said = tmp_path / "said.txt"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.collect", "hub"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(project.REPOSITORY)},
            stderr=stderr,
        )
    second = root / "data/hub/team--texts" / commit / "sample/001.parquet.partial"
    until = time.monotonic() + 30
    while not (second.exists() and second.stat().st_size > size["sample/001.parquet"] / 4):
        assert time.monotonic() < until
        assert process.poll() is None, said.read_text()
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
