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
