"""`pretrain.extend_from`, in a real repository of git and DVC."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.trainers import extension
from tests.trainers import tokens
from tests.workspace import Workspace

LONGER = 30 * 256


class FakeRun:
    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch, self.said = root, scratch, []

    def log(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, str]:
    """A project whose second commit has a stable run of 20 steps, which the third extends to 30; those two commits."""
    workspace = tokens.make_workspace(tmp_path_factory.mktemp("extended") / "project")
    assert workspace.repro("pretrain") == {"pretrain"}
    workspace.commit("20 steps")
    commit = workspace.run("git", "rev-parse", "HEAD").strip()
    workspace.set({"pretrain": {"tokens": LONGER, "extend_from": commit}})
    output = workspace.dvc("repro", "pretrain")  # which holds DVC's locks while the stage fetches
    assert f"extending the run of commit {commit[:10]} from step 20 to 30" in output
    return workspace, workspace.run("git", "rev-parse", "HEAD~1").strip(), commit


def test_an_extended_run_is_the_longer_run_bit_for_bit(extended: tuple[Workspace, str, str], tmp_path: Path) -> None:
    one = extended[0].folder
    other = tokens.make_workspace(tmp_path / "project", pretrain={"tokens": LONGER})
    other.stage("pretrain")
    names = {path.name for path in (one / "models/stable").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"}
    for name in names:
        assert (one / "models/stable" / name).read_bytes() == (other.folder / "models/stable" / name).read_bytes(), name
    for name in ("train.csv", "val.csv", "samples.json"):
        path = Path("reports/pretrain") / name
        assert (one / path).read_text() == (other.folder / path).read_text(), name


def test_another_decay_trains_no_stable_part(extended: tuple[Workspace, str, str]) -> None:
    workspace, _, _ = extended
    workspace.set({"decay": {"fraction": 0.25}})
    assert workspace.repro() == {"decay"}
    assert '"steps": 40' in (workspace.folder / "reports/decay/metrics.json").read_text()


@pytest.mark.parametrize(
    ("commit", "steps", "message"),
    [
        ("f" * 40, 30, r"of commit f{40} cannot be had.*dvc\.lock records"),
        ("before", 30, "cannot be had"),  # it recorded no run
        ("made", 20, r"has 20 steps already, and pretrain\.tokens asks for 20; raise pretrain\.tokens"),
    ],
)
def test_what_cannot_be_extended_is_one_clear_message(
    extended: tuple[Workspace, str, str], tmp_path: Path, commit: str, steps: int, message: str
) -> None:
    workspace, before, made = extended
    run = FakeRun(workspace.folder, tmp_path)
    with pytest.raises(SmeltError, match=message):
        extension.start(run, {"before": before, "made": made}.get(commit, commit), steps)()


def test_another_shape_cannot_go_on(extended: tuple[Workspace, str, str]) -> None:
    workspace, _, _ = extended
    workspace.set({"model": {"feed_forward": 64}, "seed": 5})
    output = workspace.stage("pretrain", fails=True)
    assert "step 20 was made with another configuration" in output
    assert "model: it has" in output
    assert "seed: it has 1, this run 5" in output
    assert "Traceback" not in output


def test_files_that_are_nowhere_are_one_clear_message(extended: tuple[Workspace, str, str], tmp_path: Path) -> None:
    workspace, _, made = extended
    shutil.rmtree(workspace.folder / ".dvc/cache")
    with pytest.raises(SmeltError, match=r"cannot be had.*`dvc push` in the clone"):
        extension.start(FakeRun(workspace.folder, tmp_path), made, 30)()


def test_without_a_commit_there_is_nothing_to_begin_with(tmp_path: Path) -> None:
    assert extension.start(FakeRun(tmp_path, tmp_path), None, 30) is None
