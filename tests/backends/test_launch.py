"""The launcher with real processes: a stage of our own under torchrun, ended in every way it can end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.backends import launch
from lib.pipeline.errors import SmeltError
from tests.workspace import ROOT

DVC = """
stages:
  pretrain:
    desc: Stands for training
    cmd: python -m stages.pretrain
    deps: [stages/pretrain.py]
    outs: [models/base, reports/pretrain/run.json]
"""
# Each worker says where it is; then it does what the test asks of it.
STAGE = """
import os
import time

from lib.backends.launch import launched
from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run, stage


@launched
@stage
def main(run: Run) -> None:
    rank, task = os.environ["RANK"], os.environ["TASK"]
    run.log("only one says this")
    if task == "err":
        raise SmeltError("the shape does not divide")
    pids = f"{os.getpid()} {os.getppid()}"
    (run.root / f"{rank}.new").write_text(pids)
    (run.root / f"{rank}.new").rename(run.root / f"{rank}.pids")
    if task == "wait":
        try:
            time.sleep(60)
        except SystemExit:
            (run.root / f"{rank}.saved").touch()
            raise
    if run.follows:
        return
    run.out("models/base").write_text(os.environ["WORLD_SIZE"])


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").touch()
    (tmp_path / "stages" / "pretrain.py").write_text(STAGE)
    return tmp_path


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Launched:
    """`python -m stages.pretrain` in two processes."""

    def __init__(self, root: Path, task: str) -> None:
        self.root = root
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TASK": task, "OMP_NUM_THREADS": "1"}
        environment["SMELT_LAUNCHER"] = "torchrun --nproc-per-node 2"
        self.parent = subprocess.Popen(
            [sys.executable, "-m", "stages.pretrain"],
            cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.workers: list[int] = []
        self.launcher = 0

    def started(self) -> Launched:
        files = [self.root / f"{rank}.pids" for rank in range(2)]
        until(lambda: all(file.exists() for file in files))
        (first, self.launcher), (second, _) = (map(int, file.read_text().split()) for file in files)
        self.workers = [first, second]
        return self

    def saved(self) -> set[str]:
        return {path.name for path in self.root.glob("*.saved")}

    def end(self) -> tuple[int, str]:
        """Exit code and stderr, after every process is gone."""
        said = self.parent.communicate(timeout=30)[1]
        until(lambda: not any(alive(pid) for pid in (*self.workers, self.launcher)))
        return self.parent.returncode, said


@pytest.fixture
def start(project: Path) -> Iterator[Callable[[str], Launched]]:
    runs: list[Launched] = []

    def begin(task: str) -> Launched:
        runs.append(Launched(project, task))
        return runs[-1]

    yield begin
    for run in runs:
        for pid in (run.parent.pid, run.launcher, *run.workers):
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_all_run_the_stage_and_the_first_writes(start: Callable[[str], Launched], project: Path) -> None:
    code, said = start("write").started().end()
    assert code == 0, said
    assert (project / "models/base").read_text() == "2"
    assert json.loads((project / "reports/pretrain/run.json").read_text())["stage"] == "pretrain"
    assert said.count("only one says this") == 1
    assert not list((project / ".scratch").glob("*.message"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_workers(start: Callable[[str], Launched], number: int) -> None:
    run = start("wait").started()
    if number == signal.SIGTERM:
        code, said = Launched(run.root, "write").end()
        assert code == 1
        assert f"process {run.workers[0]} is running this stage already" in said
    run.parent.send_signal(number)
    code, _ = run.end()
    assert code == 128 + number
    assert run.saved() == {"0.saved", "1.saved"}


def test_a_killed_worker_ends_the_run(start: Callable[[str], Launched]) -> None:
    run = start("wait").started()
    os.kill(run.workers[1], signal.SIGKILL)
    code, said = run.end()
    assert code == 1
    assert "a worker was killed or failed" in said.splitlines()[-1]
    assert "The same command continues" in said.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word that a parent died")
@pytest.mark.parametrize("victim", ["parent", "launcher"])
def test_nobody_stays_behind(start: Callable[[str], Launched], victim: str) -> None:
    run = start("wait").started()
    os.kill(run.parent.pid if victim == "parent" else run.launcher, signal.SIGKILL)
    run.end()
    assert run.saved() == {"0.saved", "1.saved"}


def test_a_mistake_is_told_once_and_last(start: Callable[[str], Launched]) -> None:
    code, said = start("err").end()
    assert code == 1
    assert said.splitlines()[-1] == "pretrain: error: the shape does not divide"
    assert said.count("the shape does not divide") == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [("torchrunn --nproc-per-node 2", "no program 'torchrunn'"), ("torchrun '--nproc", "no command"), (" ", "''")],
)
def test_a_missing_launcher_is_one_message(monkeypatch: pytest.MonkeyPatch, given: str, told: str) -> None:
    monkeypatch.setenv("SMELT_LAUNCHER", given)
    with pytest.raises(SmeltError, match=told):
        launch.command_line("stages.pretrain", [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("torchrun --nproc-per-node 2", ["--nproc-per-node", "2", "-m", "stages.pretrain"]),
        ("env A=b torchrun", ["A=b", "torchrun", "-m", "stages.pretrain"]),
        ("env -n 2", ["-n", "2", sys.executable, "-m", "stages.pretrain"]),
    ],
)
def test_what_the_launcher_is_given(monkeypatch: pytest.MonkeyPatch, given: str, words: list[str]) -> None:
    monkeypatch.setenv("SMELT_LAUNCHER", given)
    program, *rest = launch.command_line("stages.pretrain", [])
    assert Path(program).name == given.split()[0]
    assert rest == words


def test_a_task_of_slurm_and_a_process_of_open_mpi_find_each_other() -> None:
    slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    slurm |= {"SLURM_STEP_NODELIST": "gpu[07-09,12],cpu1", "SLURM_JOB_ID": "4711"}
    assert not launch.is_worker(slurm)  # a shell that Slurm started has these too
    assert launch.adopt(slurm) == 5
    assert launch.is_worker(slurm)
    assert (slurm["WORLD_SIZE"], slurm["LOCAL_RANK"], slurm["MASTER_ADDR"]) == ("8", "1", "gpu07")
    mpi = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    assert launch.adopt({**mpi, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}) == 0
    with pytest.raises(SmeltError, match="MASTER_ADDR"):
        launch.adopt({**mpi, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    with pytest.raises(SmeltError, match="no RANK"):
        launch.adopt({"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b[1-2]", "a"), ("n[3,7]", "n3"), ("r[1-2]-x,q", "r1-x"), ("n[007-010]", "n007")],
)
def test_first_node_of_a_list(nodes: str, first: str) -> None:
    assert launch.first_node(nodes) == first


def test_several_devices_and_one_process_is_worth_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launch.hint(1) is None
    assert "SMELT_LAUNCHER='torchrun --nproc-per-node 4'" in launch.hint(4)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert launch.hint(4) is None
