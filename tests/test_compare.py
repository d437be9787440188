"""`make compare` on a real repository: two commits, an experiment and the workspace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib import compare
from lib.evals.items import Item, to_lines
from lib.pipeline.errors import SmeltError
from tests.workspace import Workspace

PATH = "reports/evaluate/chat/items.jsonl"
DVC = """
stages:
  evaluate:
    foreach: {chat: {x: 1}, base: {x: 1}}
    do:
      desc: measure
      cmd: python make.py ${key}
      deps: [make.py]
      params: [shift, items]
      outs: ["reports/evaluate/${key}/items.jsonl"]
"""
MAKE = """
import json, pathlib, sys
from ruamel.yaml import YAML
given = YAML(typ="safe").load(pathlib.Path("params.yaml"))
folder = pathlib.Path("reports/evaluate") / sys.argv[1]
folder.mkdir(parents=True, exist_ok=True)
shift = given["shift"] if sys.argv[1] == "chat" else 0
rows = [{"task": "bits_per_byte/wiki", "id": str(n), "score": 2 - shift + n % 5, "weight": 100 + n} for n in range(40)]
rows += [{"task": "piqa/accuracy", "id": str(n), "score": float(n % 2)} for n in range(given["items"])]
(folder / "items.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


def set_params(folder: Path, shift: float, items: int) -> None:
    (folder / "params.yaml").write_text(f"shift: {shift}\nitems: {items}\n")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A branch `first`, main, which is better in bits per byte, and the experiment `trial`, which is worse."""
    folder = tmp_path_factory.mktemp("repository")
    there = Workspace(folder)
    (folder / "dvc.yaml").write_text(DVC)
    (folder / "make.py").write_text(MAKE)
    set_params(folder, 0.0, 30)
    there.run("git", "init", "--quiet", "--initial-branch=main")
    there.dvc("init", "--quiet")
    there.commit("before anything was measured")
    there.run("git", "tag", "empty")
    there.dvc("repro")
    there.commit("first")
    there.run("git", "branch", "first")
    set_params(folder, 0.25, 40)
    there.dvc("repro")
    there.commit("second")
    there.dvc("exp", "run", "--quiet", "--name", "trial", "-S", "shift=-0.5")
    there.run("git", "checkout", "--quiet", "--force", "main")
    there.dvc("checkout", "--quiet", "--force")
    return there


def table(rows: list[compare.Row]) -> dict[tuple[str, str], compare.Row]:
    return {(row.model, row.task): row for row in rows}


def test_a_branch_beside_the_workspace(repository):
    rows = table(compare.run(repository.folder, ("first", "workspace"), []))
    bits = rows["chat", "bits_per_byte"]
    assert bits.found.value == pytest.approx(-0.25)
    assert (bits.verdict, bits.found.items) == ("better", 40)
    assert rows["base", "bits_per_byte"].verdict == ""
    accuracy = rows["chat", "piqa/accuracy"].found
    assert (accuracy.items, accuracy.only_after, accuracy.value, accuracy.p) == (30, 10, 0.0, 1.0)


def test_an_experiment_is_found_by_its_name(repository):
    rows = table(compare.run(repository.folder, ("main", "trial"), ["chat"]))
    assert rows["chat", "bits_per_byte"].found.value == pytest.approx(0.75)
    assert rows["chat", "bits_per_byte"].verdict == "worse"
    assert {model for model, _ in rows} == {"chat"}


def command(repository: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "lib.compare", *arguments], cwd=repository.folder, capture_output=True, text=True,
        env=repository.environment | {"PYTHONPATH": str(root)},
    )  # fmt: skip


def test_the_command_prints_a_table_and_its_status_says_what_it_found(repository):
    found = command(repository, "first", "main")
    assert found.returncode == 0, found.stderr
    assert "-0.2500" in found.stdout
    assert "first" in found.stdout.splitlines()[0]
    assert "The sets differ" in found.stdout
    assert "10 only in main" in found.stdout
    assert command(repository, "main", "first", "--gate").returncode == 3
    assert command(repository, "first", "main", "--gate").returncode == 0
    wrong = command(repository, "nowhere", "main")
    assert wrong.returncode == 1
    assert "'nowhere' is no revision" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_what_cannot_be_compared_is_said(repository, tmp_path):
    with pytest.raises(SmeltError, match=r"'empty' is no revision.*dvc\.lock"):
        compare.run(repository.folder, ("empty", "main"), [])
    with pytest.raises(SmeltError, match=r"nothing measures reference; there are: chat, base"):
        compare.run(repository.folder, ("first", "main"), ["reference"])


def test_items_that_are_in_no_cache_are_said(repository):
    lock = repository.run("git", "show", "first:dvc.lock")
    md5 = next(line.split()[-1] for line in lock.split(PATH, 1)[1].splitlines() if "md5:" in line)
    cached = repository.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    aside = cached.with_suffix(".aside")
    cached.rename(aside)
    try:
        with pytest.raises(SmeltError, match=f"{PATH} of 'first' is in neither DVC's cache nor a remote.*make pull"):
            compare.run(repository.folder, ("first", "workspace"), ["chat"])
    finally:
        aside.rename(cached)


def test_other_sets_and_broken_files_are_said(repository):
    file = repository.folder / PATH
    kept = file.read_bytes()
    file.unlink()
    try:
        file.write_text("".join(to_lines([Item("piqa/accuracy", "other", 1.0)])))
        with pytest.raises(SmeltError, match="no item in common"):
            compare.run(repository.folder, ("first", "workspace"), ["chat"])
        file.write_text(json.dumps({"no": "item"}) + "\n")
        with pytest.raises(SmeltError, match=f"{PATH} of 'workspace' holds no items"):
            compare.run(repository.folder, ("first", "workspace"), ["chat"])
    finally:
        file.write_bytes(kept)


def test_many_measures_of_noise_do_not_read_as_progress():
    random = np.random.default_rng(14)

    def run() -> dict[str, compare.Items]:
        return {
            "chat": {
                f"t{task}": {str(n): Item(f"t{task}", str(n), float(random.normal())) for n in range(25)}
                for task in range(30)
            }
        }

    rows = compare.rows(run(), run())
    assert any(row.found.p < 0.05 for row in rows)  # which uncorrected would be a finding
    assert not any(row.verdict for row in rows)
