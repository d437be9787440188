"""`make push-hub` against a hub's stand-in on this machine, by the hub's own client."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.export import huggingface, model_card
from lib.export.lineage import Lineage
from lib.push import push
from tests.export.conftest import about
from tests.sources.hub_server import HubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(writers={"write": "me"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "write")
        yield server


@pytest.fixture(scope="module")
def export(make_model: Callable[[str], Path], lineage: Lineage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "hf"
    huggingface.export(make_model("qwen3_tied"), folder, "float16", lineage)
    model_card.write(folder, "tiny", lineage, about("hf"))
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess:
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "lib.push", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_DISABLE_XET": "1"},
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_uploaded_to_a_private_repository_once(server: HubServer, export: Path) -> None:
    done = run("me/tiny", export)
    assert done.returncode == 0, done.stderr
    commit = server.heads["me/tiny"]
    assert done.stdout.strip() == f"{server.url}/me/tiny/commit/{commit}"
    assert server.commits["me/tiny"][commit] == contents(export)
    assert server.private == {"me/tiny"}
    assert server.messages == ["Upload by Smelt"]
    assert {one.token for one in server.requests if "me/tiny" in one.path or "create" in one.path} == {"write"}
    assert {one.token for one in server.requests if one.path.startswith("/storage")} == {None}

    # Again: the weights are there already.
    sent = sum(one.path.startswith("/storage") for one in server.requests)
    again = run("me/tiny", export, "--message", "second")
    assert again.returncode == 0, again.stderr
    assert sum(one.path.startswith("/storage") for one in server.requests) == sent
    assert server.commits["me/tiny"][server.heads["me/tiny"]] == contents(export)


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        (None, "me/tiny", "put one of your account into the environment as HF_TOKEN"),
        ("wrong", "me/tiny", "does not know the token in HF_TOKEN"),
        ("write", "others/tiny", "may not write to others/tiny"),
        ("write", "me/a b", "'me/a b' is no name of a repository"),
        ("write", "me/public", "me/public is public"),
    ],
)
def test_what_cannot_be_uploaded_is_said_in_one_line(
    token: str | None, repo: str, words: str, server: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("me/public", {"README.md": b""})
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
    done = run(repo, export)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not server.messages


def test_what_is_no_export_is_not_uploaded(server: HubServer, export: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder, words in (
        (tmp_path / "absent", "is no folder"),
        (tmp_path, "has no .gguf, .safetensors or .onnx file"),
    ):
        with pytest.raises(Exception, match=words):
            push(folder, "me/tiny", "message")
    assert not server.requests


def test_a_hub_that_is_down_is_named(server: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run("me/tiny", export)
    assert done.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr
