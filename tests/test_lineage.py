"""`make lineage` in a small repository made by git and DVC themselves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from ruamel.yaml import YAML

from lib import lineage
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_value
from lib.text.documents import Document, write_documents
from tests.dvc_repository import commit, create, shell

PIPELINE = """
stages:
  mix:
    cmd: mkdir -p data && cp -r input/mix data/mix
    deps: [input/mix]
    outs: [data/mix]
  finetune:
    cmd: mkdir -p models/chat && cat data/mix/train/* params.yaml > models/chat/weights
    deps: [data/mix/train]
    params: [rank]
    outs: [models/chat]
  export:
    matrix:
      format: [gguf]
    cmd: mkdir -p models/export && cp -r input/gguf models/export/gguf
    deps: [models/chat, input/gguf]
    outs: [models/export/gguf]
"""


def write_inputs(root: Path, version: int) -> None:
    shutil.rmtree(root / "input", ignore_errors=True)
    for split, count in (("train", 5), ("val", 1), ("test", 2)):
        documents = [
            Document(f"wiki/v{version}/{split}#{number}", "text", "uri", "wiki", "CC-BY-SA-4.0")
            for number in range(count)
        ]
        write_documents(root / "input/mix" / split, documents)
    params = {"mix": {"seed": 1}, "finetune": {"rank": version}}
    sources = {
        "wiki": {"licence": "CC-BY-SA-4.0", "package": "wiki==2.1", "sha256": "cd" * 32, "documents": 5},
        "data/assets/them": {"licence": "MIT", "package": None, "sha256": "ab" * 32, "documents": None},
    }
    inside = Lineage({"code": "c", "data": f"d{version}", "params": hash_value(params)}, sources, params)
    for name in ("F16", "Q8_0"):
        path = root / f"input/gguf/tiny-{name}.gguf"
        path.parent.mkdir(exist_ok=True)
        writer = GGUFWriter(path, "qwen3")
        for key, value in inside.to_metadata().items():
            writer.add_string(key, value)
        writer.add_tensor(name, np.arange(version * 8, version * 8 + 64, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    (root / "params.yaml").write_text(f"rank: {version}\n")


@pytest.fixture(scope="module")
def _history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A repository with two versions of everything, the second one in two commits, and a copy of the first model."""
    home = tmp_path_factory.mktemp("lineage")
    root = home / "repository"
    with pytest.MonkeyPatch.context() as patch:
        create(root, patch)
        (root / "dvc.yaml").write_text(PIPELINE)
        commits = []
        for version in (1, 2):
            write_inputs(root, version)
            shell(root, "dvc", "repro", "--quiet")
            commits.append(commit(root, f"version {version}"))
            if version == 1:
                shutil.copyfile(root / "models/export/gguf/tiny-Q8_0.gguf", home / "renamed.bin")
        (root / "dvc.lock").write_text((root / "dvc.lock").read_text() + "\n")
        commits.append(commit(root, "same results"))
        yield root, commits


@pytest.fixture
def repository(_history: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A private copy: its cache is inside it."""
    return shutil.copytree(_history[0], tmp_path / "repository", symlinks=True)


@pytest.fixture
def commits(_history: tuple[Path, list[str]]) -> list[str]:
    return _history[1]


@pytest.fixture
def renamed(_history: tuple[Path, list[str]]) -> Path:
    return _history[0].parent / "renamed.bin"


def run(root: Path, *arguments: object, expect: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lib.lineage", *map(str, arguments)],
        cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


def test_folder_hash_is_that_of_dvc(repository: Path) -> None:
    stages = YAML(typ="safe").load(repository / "dvc.lock")["stages"]
    recorded = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    assert set(recorded) == {"data/mix", "models/chat", "models/export/gguf"}
    for path, md5 in recorded.items():
        assert lineage.hash_listing(lineage.list_folder(repository / path)) == md5


def test_current_file_leads_to_its_commit_inputs_and_documents(repository: Path, commits: list[str]) -> None:
    found = lineage.describe(repository, repository / "models/export/gguf/tiny-F16.gguf")
    origin = found["origin"]
    assert (origin["commit"], origin["also_in"]) == (commits[1], [commits[2]])
    assert origin["title"].endswith("version 2")
    assert origin["output"] == "models/export/gguf"
    assert list(origin["stages"]) == ["mix", "finetune", "export@gguf"]
    assert origin["stages"]["finetune"]["params"] == {"params.yaml": {"rank": 2}}
    assert [dep["path"] for dep in origin["stages"]["mix"]["deps"]] == ["input/mix"]
    assert origin["stale"] == []
    assert found["documents"] == {
        "total": 8,
        "splits": {"train": 5, "val": 1, "test": 2},
        "sources": {"wiki": 8},
        "first": ["wiki/v2/train#0", "wiki/v2/train#1", "wiki/v2/train#2"],
    }
    assert found["fingerprints"]["data"] == "d2"
    assert found["params_match_fingerprint"]


def test_renamed_copy_of_an_older_model_is_found_by_its_bytes(
    repository: Path, commits: list[str], renamed: Path
) -> None:
    found = lineage.describe(repository, renamed)
    assert (found["origin"]["commit"], found["origin"]["also_in"]) == (commits[0], [])
    assert found["fingerprints"]["data"] == "d1"
    # The workspace has other documents now; the hint brings the right ones back.
    assert f"git checkout {commits[0][:10]} dvc.lock && dvc checkout data/mix" in found["documents"]["missing"]
    shell(repository, "git", "checkout", "--quiet", commits[0], "--", "dvc.lock")
    shell(repository, "dvc", "checkout", "--quiet", "data/mix")
    assert lineage.describe(repository, renamed)["documents"]["first"][0] == "wiki/v1/train#0"


def test_without_a_cache_the_workspace_answers(repository: Path, commits: list[str], renamed: Path) -> None:
    shutil.rmtree(repository / ".dvc/cache")
    assert lineage.describe(repository, repository / "models/export/gguf")["origin"]["commit"] == commits[1]
    assert lineage.describe(repository, renamed)["origin"] is None


def test_uncommitted_lock_is_used_and_named(repository: Path) -> None:
    write_inputs(repository, 3)
    shell(repository, "dvc", "repro", "--quiet")
    found = lineage.describe(repository, repository / "models/export/gguf")
    assert found["origin"]["commit"] is None
    text = lineage.format_text(found)
    assert "not committed yet" in text
    assert "wiki: 5 training documents, CC-BY-SA-4.0" in text
    assert "data/assets/them: the model that it began with, MIT" in text
    assert found["documents"]["first"][0] == "wiki/v3/train#0"


def test_a_lock_whose_stages_do_not_fit_is_reported(repository: Path) -> None:
    """The export stands while the model before it was made anew: `dvc repro finetune` with another parameter."""
    stages = YAML(typ="safe").load(repository / "dvc.lock")["stages"]
    stages["finetune"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    traced = lineage.trace(stages, "models/export/gguf")
    assert traced.stale == ["models/chat, read by export@gguf"]


def test_edited_parameters_are_noticed(repository: Path) -> None:
    path = repository / "models/export/gguf/tiny-F16.gguf"
    content = path.read_bytes()
    path.unlink()  # the file may be a link into the cache
    path.write_bytes(content.replace(b'"rank": 2', b'"rank": 9'))
    found = lineage.describe(repository, path)
    assert not found["params_match_fingerprint"]
    assert found["origin"] is None
    assert "the file was edited" in lineage.format_text(found)


def test_command(repository: Path, commits: list[str]) -> None:
    text, _ = run(repository, "models/export/gguf/tiny-Q8_0.gguf", "--documents", "documents.tsv")
    for words in (commits[1][:10], "wiki==2.1", "cd" * 32, "CC-BY-SA-4.0", "rank = 2", "input/mix", "wiki/v2/train#0"):
        assert words in text
    lines = (repository / "documents.tsv").read_text().splitlines()
    assert lines[0] == "split\tsource\tlicence\tid"
    assert lines[1] == "train\twiki\tCC-BY-SA-4.0\twiki/v2/train#0"
    assert len(lines) == 9
    printed, _ = run(repository, "models/export/gguf", "--json")
    assert json.loads(printed)["origin"]["commit"] == commits[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models/export/nothing.gguf"], "does not exist"),
        (["data/mix"], "has no .gguf, .safetensors or .onnx file"),
        (["dvc.yaml"], "neither a GGUF nor a safetensors nor an ONNX file"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, repository: Path) -> None:
    printed, error = run(repository, *arguments, expect=1)
    assert printed == ""
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_documents_of_an_unknown_state_are_refused(repository: Path, renamed: Path) -> None:
    _, error = run(repository, renamed, "--documents", "documents.tsv", expect=1)
    assert "dvc checkout data/mix" in error
    assert not (repository / "documents.tsv").exists()


def test_no_repository_at_all(renamed: Path, tmp_path: Path) -> None:
    found = lineage.describe(tmp_path, renamed)
    assert found["origin"] is None
    assert "made elsewhere" in lineage.format_text(found)
    with pytest.raises(SmeltError, match="does not exist"):
        lineage.find_weights(tmp_path / "absent")
