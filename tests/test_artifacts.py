"""A release is a git tag: `dvc artifacts get` brings an export of it, without a clone."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.pipeline.declarations import declarations
from tests.dvc_repository import commit, create, shell

ROOT = Path(__file__).resolve().parents[1]


def test_every_export_is_an_artifact() -> None:
    artifacts = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]
    outs = {out for name, stage in declarations(ROOT).items() if name.startswith("export@") for out in stage.outs}
    assert {entry["path"] for entry in artifacts.values()} == {out for out in outs if out.startswith("models/")}
    assert {entry["type"] for entry in artifacts.values()} == {"model"}
    assert all(name == f"smelt-{entry['path'].rpartition('/')[2]}" for name, entry in artifacts.items())


def test_a_tagged_version_is_fetched_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's own `artifacts`, over a line of one stage, in a repository that was made anew since the tag."""
    root, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    create(root, monkeypatch)
    elsewhere.mkdir()
    artifacts = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]
    stage = {
        "cmd": "mkdir -p models/export && cp -r input models/export/gguf",
        "deps": ["input"],
        "outs": ["models/export/gguf"],
    }
    YAML().dump({"stages": {"export": stage}, "artifacts": artifacts}, root / "dvc.yaml")
    (root / "input").mkdir()
    for version in ("1.0.0", "1.1.0"):
        (root / "input/tiny-Q8_0.gguf").write_text(f"weights of {version}")
        shell(root, "dvc", "repro", "--quiet")
        commit(root, version)
        shell(root, "git", "tag", "--annotate", "--message", version, f"smelt-gguf@v{version}")  # not a lightweight one
    shutil.rmtree(root / "models")

    for asked, found in (([], "1.1.0"), (["--rev", "v1.0.0"], "1.0.0")):
        out = elsewhere / found
        shell(elsewhere, "dvc", "artifacts", "get", str(root), "smelt-gguf", *asked, "--out", str(out))
        assert (out / "tiny-Q8_0.gguf").read_text() == f"weights of {found}"
