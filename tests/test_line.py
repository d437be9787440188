"""The whole line through real DVC on little data: what runs, what does not, what survives a kill, what can be shared.

The tests share one workspace and follow each other; each leaves it up to date.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.params.load import load
from lib.pipeline.declarations import declarations
from lib.preset import overlay
from tests.workspace import ROOT, Workspace, ran

pytestmark = pytest.mark.slow
EXPORTS = {f"export@{format}" for format in ("hf", "adapter", "gguf", "onnx", "mlx")}
RATE = load(ROOT / "params.yaml").pretrain.learning_rate


def metrics(line: Workspace, *path: str) -> dict:
    return json.loads(line.folder.joinpath("reports", *path).read_text())


def test_everything_that_was_promised_is_there(line: Workspace) -> None:
    assert "Data and pipelines are up to date" in line.dvc("status")
    for stage in declarations(line.folder).values():
        assert all((line.folder / out).exists() for out in stage.outs)
    exported = {path.name for path in (line.folder / "models/export/gguf").iterdir()}
    assert exported >= {"tiny-F16.gguf", "tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"}
    assert "data/internal is empty" not in (line.folder / "reports/index.html").read_text()
    assert not list(line.folder.rglob("*.partial"))
    left = [path.relative_to(line.folder / ".scratch") for path in (line.folder / ".scratch").rglob("*")]
    kept = {"measured", "stores", "vectors"}  # what another run need not compute again
    assert not [path for path in left if path.suffix != ".lock" and path.parts[0] not in kept]
    assert line.run("git", "status", "--porcelain") == ""


def test_documents_in_equal_documents_out_plus_rejects(line: Workspace) -> None:
    total = 0
    for name in ("internal", "awscli", "wiki", "boolq", "factbook", "fiction", "networkx"):
        collected = metrics(line, "collect", name, "metrics.json")["collect"][name]
        cleaned = metrics(line, "clean", name, "metrics.json")["clean"][name]
        assert cleaned["documents_in"] == collected["documents"]
        assert cleaned["documents_in"] == cleaned["documents_out"] + sum(cleaned["reasons"].values())
        total += cleaned["documents_out"]
    dedup = metrics(line, "dedup", "metrics.json")["dedup"]
    assert dedup["documents_in"] == total == dedup["documents_out"] + sum(dedup["reasons"].values())


def test_a_second_repro_does_nothing(line: Workspace) -> None:
    assert line.repro() == set()


def test_a_parameter_reruns_what_depends_on_it(line: Workspace) -> None:
    line.set({"finetune": {"learning_rate": 0.0015}})
    tuned = {"finetune", "preferences", "prefer"}
    assert line.repro() == tuned | EXPORTS | {"evaluate@chat", "judge", "report"}
    line.commit("another learning rate")


def test_an_edit_in_a_package_reruns_what_imports_it(line: Workspace) -> None:
    with (line.folder / "lib/export/huggingface.py").open("a") as file:
        file.write("# An edit that changes no result.\n")
    assert line.repro() == EXPORTS | {"report"}  # the report shows how long it took
    line.commit("an edit")


def test_a_document_reruns_its_own_source(line: Workspace) -> None:
    document = line.folder / "data/internal/handbook.md"
    document.write_text("# Holidays\n\n" + "Everyone has thirty days of holiday a year, and takes them. " * 10)
    assert line.repro("dedup") == {"collect@internal", "clean@internal", "dedup"}
    assert metrics(line, "collect", "internal", "metrics.json")["collect"]["internal"]["documents"] == 1
    document.unlink()
    assert line.repro() == set()  # as it was: DVC remembers
    assert line.run("git", "status", "--porcelain") == ""


def test_killed_training_continues_to_the_same_bits(line: Workspace) -> None:
    before = line.outs()
    line.set({"pretrain": {"learning_rate": 0.013, "tokens": 102_400}})
    process = line.start("dvc", "repro", "pretrain")
    checkpoints = line.folder / ".scratch" / "pretrain"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/step-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (line.folder / "models/stable").exists()

    output = line.dvc("repro", "pretrain")
    assert "continuing from step" in output
    resumed = line.outs()["models/stable"]
    line.dvc("repro", "--single-item", "--force", "--no-run-cache", "pretrain")
    assert line.outs()["models/stable"] == resumed != before["models/stable"]

    # As it was: DVC remembers, and trains nothing.
    line.set({"pretrain": {"learning_rate": RATE, "tokens": 20480}})
    assert not {"pretrain", "decay"} & line.repro()
    assert line.outs()["models/base"] == before["models/base"]


def test_a_second_writer_is_refused(line: Workspace) -> None:
    line.set({"pretrain": {"learning_rate": 0.012, "tokens": 400_000}})
    first = line.start("python", "-m", "stages.pretrain")
    while not list((line.folder / ".scratch/pretrain").glob("*/step-*")):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.01)
    assert "is running this stage already" in line.stage("pretrain", fails=True)
    first.terminate()
    output, _ = first.communicate()
    assert first.returncode == 143
    assert "stopped by SIGTERM" in output
    assert "Traceback" not in output
    shutil.rmtree(line.folder / ".scratch/pretrain")
    line.set({"pretrain": {"learning_rate": RATE, "tokens": 20480}})
    assert line.repro() == set()


def test_an_edit_during_a_run_is_not_recorded_as_its_cause(line: Workspace) -> None:
    line.set({"pretrain": {"learning_rate": 0.012, "tokens": 102_400}})
    process = line.start("dvc", "repro", "pretrain")
    while not list((line.folder / ".scratch/pretrain").glob("*/step-*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    line.set({"pretrain": {"learning_rate": RATE, "tokens": 20480}})
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "pretrain changed while pretrain was running" in output
    line.dvc("repro")


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (["tokenizer"], {"tokenizer": {"vocab_size": 500_000}}, "but the training text supports only"),
        (["pretrain"], {"model": {"heads": 3}}, "model.width (128) must be a multiple of model.heads (3)"),
        (["pretrain"], {"model": {"context_length": 1000}}, "must be a multiple of model.context_length"),
        (["collect", "wiki"], {"sources": {"wiki": {"members": ["nothing.json"]}}}, "has no member 'nothing.json'"),
        (
            ["chat"],
            {"chat": {"most": {"manual": -1}}},
            "chat.most.manual: Input should be greater than or equal to 0 (is -1)",
        ),
        (["clean", "poems"], {}, "dvc.yaml has no stage 'clean@poems'; there are: internal"),
    ],
)
def test_bad_input_is_one_message_and_changes_nothing(
    line: Workspace, stage: list[str], changes: dict, message: str
) -> None:
    text = (line.folder / "params.yaml").read_bytes()
    values = YAML().load(text)
    overlay(values, changes)
    with (line.folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    output = line.stage(*stage, fails=True)
    (line.folder / "params.yaml").write_bytes(text)
    assert message in output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) <= 3
    assert line.repro() == set()


def test_a_file_that_cannot_be_read_stops_its_source(line: Workspace) -> None:
    broken = line.folder / "data/internal/contract.md"
    broken.symlink_to("nowhere.md")
    output = line.stage("collect", "internal", fails=True)
    assert "contract.md" in output
    assert "Traceback" not in output
    broken.unlink()
    assert line.repro() == set()


def test_a_corpus_that_is_empty_after_filtering_is_said(line: Workspace) -> None:
    rules = {"min_words": 100_000, "max_words": None}
    line.set({"clean": {name: {"heuristics": rules} for name in ("own", "prose", "manual", "code")}})
    output = line.dvc("repro", "mix", fails=True)
    assert "no training documents are left after cleaning (internal 0, awscli 0" in output
    assert "Traceback" not in output
    line.run("git", "checkout", "--", "params.yaml")
    line.dvc("repro")
    line.run("git", "checkout", "--", ".")


def test_experiments_run_and_are_listed(line: Workspace) -> None:
    """With a parameter whose stages take seconds; what a larger one reruns is another test's."""
    assert ran(line.dvc("exp", "run", "--set-param", "contamination.ngram=6")) == {"contamination", "report"}
    line.dvc("exp", "run", "--temp", "--set-param", "contamination.ngram=7")
    for ngram in (9, 10):
        line.dvc("exp", "run", "--queue", "--set-param", f"contamination.ngram={ngram}")
    line.dvc("queue", "start", "--jobs", "1")
    deadline = time.monotonic() + 240
    while any(word in line.dvc("queue", "status") for word in ("Queued", "Running")):
        assert time.monotonic() < deadline
        time.sleep(1)
    listed = json.loads(line.dvc("exp", "show", "--json"))
    (_, baseline), *_ = [(None, entry) for entry in listed if entry.get("experiments")]
    found = [revision["data"] for entry in baseline["experiments"] for revision in entry["revs"]]
    assert sorted(data["params"]["params.yaml"]["data"]["contamination"]["ngram"] for data in found) == [6, 7, 9, 10]
    assert all("reports/evaluate/chat/metrics.json" in data["metrics"] for data in found)
    line.run("git", "checkout", "--", ".")
    line.dvc("checkout", "--force")
    assert line.repro() == set()


def test_a_fresh_clone_pulls_and_has_nothing_to_do(line: Workspace, tmp_path: Path) -> None:
    line.dvc("remote", "add", "--local", "--default", "shared", str(tmp_path / "remote"))
    line.dvc("push")
    line.run("git", "clone", "--quiet", str(line.folder), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    clone.dvc("remote", "add", "--local", "--default", "shared", str(tmp_path / "remote"))
    clone.dvc("pull", "--allow-missing")
    assert (clone.folder / "models/export/gguf/tiny-Q8_0.gguf").stat().st_size > 100_000
    assert (clone.folder / "reports/index.html").exists()
    assert ran(clone.dvc("repro", "--pull", "--allow-missing")) == set()


def test_another_folder_gives_the_same_results(line: Workspace, tmp_path: Path) -> None:
    other = Workspace.copy(tmp_path / "another place")
    other.set({"finetune": {"learning_rate": 0.0015}})
    other.repro(*EXPORTS, "index", "evaluate@chat")
    made, expected = other.outs(), line.outs()
    differing = [path for path in made if made[path] != expected[path]]
    assert not differing
    assert {"models/export/gguf", "models/export/onnx", "models/export/mlx", "models/index"} <= made.keys()
