"""The stage harness, on a repository of two stages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, exclusive, execute
from tests.workspace import ROOT

STAGES = """
stages:
  collect:
    foreach: ${sources}
    do:
      desc: Collect '${key}'
      cmd: python -m stages.collect ${key}
      deps: [lib/code.py, "${item.input}"]
      params: ["sources.${key}", seed]
      outs: ["data/raw/${key}", "reports/collect/${key}/run.json", "reports/collect/${key}/lineage.json"]
      metrics: [{"reports/collect/${key}/metrics.json": {cache: false}}]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "code.py").write_text("answer = 42\n")
    (tmp_path / "data" / "wheels").mkdir(parents=True)
    (tmp_path / "data" / "internal").mkdir()
    return tmp_path


def good(run: Run) -> None:
    (run.out(f"data/raw/{run.item}")).mkdir()
    (run.out(f"data/raw/{run.item}") / "text.txt").write_text("text")
    run.metrics({"documents": 1})


def test_a_stage_publishes_all_its_outputs(repository: Path) -> None:
    execute(repository, "collect", "wiki", good)
    assert (repository / "data/raw/wiki/text.txt").read_text() == "text"
    reports = repository / "reports/collect/wiki"
    assert json.loads((reports / "metrics.json").read_text()) == {"collect": {"wiki": {"documents": 1}}}
    record = json.loads((reports / "run.json").read_text())
    assert record["seconds"] >= 0
    assert record["peak_memory_mib"] > 10
    assert record["versions"]["python"] == sys.version.split()[0]
    lineage = json.loads((reports / "lineage.json").read_text())
    assert lineage["params"]["sources.wiki"]["licence"] == "CC-BY-SA-4.0"
    assert "seconds" not in lineage


def test_a_failing_stage_leaves_nothing_and_keeps_what_was_there(repository: Path) -> None:
    execute(repository, "collect", "wiki", good)
    before = hash_path(repository / "data")

    def bad(run: Run) -> None:
        run.out("data/raw/wiki").mkdir()
        (run.out("data/raw/wiki") / "half.txt").write_text("ha")
        raise SmeltError("no")

    with pytest.raises(SmeltError):
        execute(repository, "collect", "wiki", bad)
    assert hash_path(repository / "data") == before
    assert not list(repository.rglob("*.partial"))


def test_only_what_is_declared_can_be_read_and_written(repository: Path) -> None:
    run = Run(repository, "collect", "wiki")
    for ask in (
        lambda: run.param("pretrain"),
        lambda: run.param("sources.boolq"),
        lambda: run.dep("data/clean/wiki"),
        lambda: run.out("data/raw/boolq"),
    ):
        with pytest.raises(SmeltError, match=r"dvc.yaml does not declare"):
            ask()
    assert run.param("sources.wiki").weight > 0
    assert run.dep("data/wheels/some.whl".rpartition("/")[0]).is_dir()


def test_an_unknown_item_is_named_with_the_known_ones(repository: Path) -> None:
    with pytest.raises(SmeltError, match="no stage 'collect@nothing'; there are: internal, awscli"):
        Run(repository, "collect", "nothing")


def test_a_forgotten_output_is_a_fault_of_the_stage(repository: Path) -> None:
    with pytest.raises(RuntimeError, match="without writing data/raw/wiki"):
        execute(repository, "collect", "wiki", lambda run: run.metrics({}))


@pytest.mark.parametrize(("file", "old", "new"), [("lib/code.py", "42", "43"), ("params.yaml", "seed: 1", "seed: 2")])
def test_code_or_params_that_move_make_the_result_void(repository: Path, file: str, old: str, new: str) -> None:
    def edited(run: Run) -> None:
        good(run)
        path = repository / file
        path.write_text(path.read_text().replace(old, new))

    with pytest.raises(SmeltError, match=r"(lib/code.py|seed) changed while collect@wiki was running"):
        execute(repository, "collect", "wiki", edited)
    assert not (repository / "data/raw/wiki").exists()


def test_a_param_of_another_stage_may_change_meanwhile(repository: Path) -> None:
    def edited(run: Run) -> None:
        good(run)
        path = repository / "params.yaml"
        path.write_text(path.read_text().replace("rank: 16", "rank: 8"))

    execute(repository, "collect", "wiki", edited)


def test_scratch_is_keyed_by_params_code_and_inputs(repository: Path) -> None:
    first = Run(repository, "collect", "wiki").scratch
    assert Run(repository, "collect", "wiki").scratch == first
    (repository / "data/wheels/more.txt").write_text("more")
    second = Run(repository, "collect", "wiki").scratch
    (repository / "lib/code.py").write_text("answer = 43\n")
    third = Run(repository, "collect", "wiki").scratch
    assert len({first, second, third}) == 3


def test_scratch_lies_in_the_main_repository(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC sets DVC_ROOT to it in temporary workspaces: an experiment resumes where another run of it stopped."""
    main = tmp_path_factory.mktemp("main")
    here = Run(repository, "collect", "wiki").scratch
    monkeypatch.setenv("DVC_ROOT", str(main))
    there = Run(repository, "collect", "wiki").scratch
    assert there.is_relative_to(main)
    assert there.name == here.name


def test_the_lock_is_free_after_a_kill(repository: Path) -> None:
    """The kernel drops a flock with its process, so a killed stage locks nobody out."""
    lock = repository / ".scratch" / "a.lock"
    script = (
        "from pathlib import Path\n"
        "from lib.pipeline.run import exclusive\n"
        f"with exclusive(Path({str(lock)!r})):\n"
        "    print(1, flush=True)\n"
        "    input()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(SmeltError, match=f"process {process.pid} is running this stage"), exclusive(lock):
        pass
    process.kill()
    process.wait()
    with exclusive(lock):
        assert lock.read_text() == str(os.getpid())


def test_a_full_disk_gives_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    """A real full disk: a file system of one megabyte."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        for name in ("params.yaml", "pyproject.toml"):
            shutil.copyfile(ROOT / name, small / name)
        (small / "dvc.yaml").write_text(STAGES)
        (small / "lib").mkdir()
        (small / "lib" / "code.py").write_text("answer = 42\n")
        (small / "data" / "wheels").mkdir(parents=True)
        (small / "collect.py").write_text(
            "from lib.pipeline.run import stage\n"
            "@stage\n"
            "def main(run):\n"
            "    run.out('data/raw/wiki').mkdir()\n"
            "    (run.out('data/raw/wiki') / 'big').write_bytes(bytes(2**21))\n"
            "main()\n"
        )
        done = subprocess.run(
            [sys.executable, small / "collect.py", "wiki"], cwd=small, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.returncode == 1
        assert "collect: error: the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((small / "data").rglob("*wiki*"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_peak_memory_is_not_that_of_the_starting_process() -> None:
    """The kernel counts the memory of a parent into ru_maxrss of its child; here a parent of 400 MB."""
    child = "from lib.pipeline.record import Record; print(Record().finish('s', [])['peak_memory_mib'])"
    parent = f"import subprocess, sys; held = b'x' * 400_000_000; subprocess.run([sys.executable, '-c', {child!r}])"
    found = subprocess.run([sys.executable, "-c", parent], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 5 < float(found.stdout) < 200


def test_peak_memory_counts_workers_that_are_still_there(tmp_path: Path) -> None:
    """A worker has held 300 MB and waits for more work when the record is written; the parent has held little."""
    (tmp_path / "holding.py").write_text("def hold() -> int:\n    return len(b'x' * 300_000_000)\n")
    (tmp_path / "main.py").write_text(
        "import multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from holding import hold\n"
        "from lib.pipeline.record import Record\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:\n"
        "        pool.submit(hold).result()\n"
        "        print(Record().finish('s', [])['peak_memory_mib'])\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, str(tmp_path / "main.py")]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 290 < float(found.stdout) < 600


def test_dvc_yaml_may_name_a_parameter(repository: Path) -> None:
    """As DVC fills it in: a path that a stage depends on is a knob like any other."""
    text = STAGES.replace("lib/code.py", 'lib/code.py, "${finetune.base}"')
    (repository / "dvc.yaml").write_text(text)
    assert declarations(repository)["collect@wiki"].deps == ["lib/code.py", "models/base", "data/wheels"]
    (repository / "dvc.yaml").write_text(text.replace("finetune.base", "finetune.bass"))
    with pytest.raises(SmeltError, match=r"dvc\.yaml says .*, and params\.yaml has no finetune\.bass"):
        declarations(repository)
