"""The stage itself, in the harness, with the repository's own dvc.yaml and params.yaml."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.export.lineage import read
from lib.params import load as parameters
from lib.pipeline.run import execute
from stages.export import main
from tests.export.conftest import MIXTURE, STAGES

REPOSITORY = Path(__file__).parents[2]


def make_workspace(root: Path, model: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml", "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, root / name)
    shutil.copytree(model, root / "models/chat")
    for stage in STAGES:
        path = root / "reports" / stage["stage"] / "lineage.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(stage))
    (root / "reports/mix/metrics.json").write_text(json.dumps({"mix": {"sources": MIXTURE}}))
    return root


@pytest.mark.parametrize("item", ["hf", "gguf"])
def test_two_workspaces_give_equal_outputs(
    item: str, make_model: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for number in (1, 2):
        monkeypatch.setenv("SMELT_WORKERS", str(number))
        root = make_workspace(tmp_path / f"workspace{number}", make_model("qwen3"))
        execute(root, "export", item, main.__wrapped__)
        folder = root / "models/export" / item
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        metrics = json.loads((root / f"reports/export/{item}/metrics.json").read_text())
        contents.append((hashes, metrics))
        for file in folder.iterdir():
            assert str(tmp_path).encode() not in file.read_bytes()
    assert contents[0] == contents[1]
    measured = metrics["export"][item]
    if item == "hf":
        assert measured == {"bytes": sum(file.stat().st_size for file in folder.iterdir())}
        assert "package" in read(folder / "model.safetensors").sources["wiki"]
    else:
        export = parameters.load(root / "params.yaml").export
        assert set(measured["files"]) == {"F16", *export.gguf.quantisations}
        for kind, figures in measured["files"].items():
            assert (folder / f"{export.name}-{kind}.gguf").stat().st_size == figures["bytes"]
