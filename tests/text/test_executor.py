"""The same tasks on every executor: the same results and the same bytes, whoever runs them and however often."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.text import executor
from lib.text.documents import Document, write_documents
from tests.text import tasks

ROOT = Path(__file__).parents[2]


def files(folder: Path, number: int) -> list[str]:
    folder.mkdir()
    for index in range(number):
        (folder / f"f{index}").write_text("x" * index)
    return [str(folder / f"f{index}") for index in range(number)]


def runs(folder: Path) -> list[str]:
    return sorted((folder / "runs").read_text().split())


def shout_all(root: Path, name: str, workers: int) -> tuple[list[int], dict[str, bytes]]:
    """Rewrite four shards, from the same folder; counts and bytes come back."""
    source, target = root / "source", root / name
    for shard in range(4):
        documents = [Document(f"s/{shard}/{n}", f"text {n} of {shard}", "u", "s", "MIT") for n in range(shard * 10)]
        write_documents(source / str(shard), documents)
    paths = [str(source / str(shard) / "00000.parquet") for shard in range(4)]
    for shard, path in enumerate(paths):
        os.replace(path, moved := source / f"{shard:05d}.parquet")
        paths[shard] = str(moved)
    counts = executor.each(partial(tasks.shout, target=target), paths, root / f"{name}.work", workers)
    return counts, {
        path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*.parquet"))
    }


# ----------------------------------------------------------------------------------------------------------------------
# This machine


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(tmp_path: Path, workers: int) -> None:
    paths = files(tmp_path / "in", 7)
    expected = [{"name": f"f{index}", "letters": index} for index in range(7)]
    assert executor.each(tasks.count, paths, tmp_path / "work", workers) == expected
    assert runs(tmp_path / "in") == [f"f{index}" for index in range(7)]


def test_no_tasks_no_results(tmp_path: Path) -> None:
    assert executor.each(tasks.count, [], tmp_path / "work", 2) == []


def test_the_number_of_workers_does_not_matter(tmp_path: Path) -> None:
    one, three = (shout_all(tmp_path, f"w{workers}", workers) for workers in (1, 3))
    assert one == three
    assert one[0] == [0, 10, 20, 30]
    assert len(one[1]) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_done_is_not_done_again(tmp_path: Path, workers: int) -> None:
    paths = files(tmp_path / "in", 3)
    os.rename(paths[1], tmp_path / "away")
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        executor.each(tasks.count, paths, tmp_path / "work", workers)
    before = runs(tmp_path / "in")
    os.rename(tmp_path / "away", paths[1])
    found = executor.each(tasks.count, paths, tmp_path / "work", workers)
    assert [result["letters"] for result in found] == [0, 1, 2]
    assert len(runs(tmp_path / "in")) == 3 + 1  # f1 was begun twice, the others once
    assert "f0" in before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_one_message(tmp_path: Path, workers: int) -> None:
    for task, kind, message in (
        ("user", SmeltError, r"^page 3 is upside down; turn it$"),
        ("denied", SmeltError, r"^Permission denied: /secret$"),
        ("bug", RuntimeError, r"^task 1 failed:\nTraceback[\s\S]*ValueError: a bug\n$"),
    ):
        with pytest.raises(kind, match=message):
            executor.each(tasks.fail, ["a", task, "b"], tmp_path / task, workers)


def test_a_killed_worker_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"a worker process was killed.*SMELT_WORKERS=1"):
        executor.each(tasks.fail, ["killed", "a"], tmp_path, 2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "run.py").write_text(
        "import signal, sys; from pathlib import Path; from lib.text import executor; from tests.text import tasks\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as a stage does\n"
        f"    executor.each(tasks.wait, [{str(tmp_path)!r}] * 2, Path(__file__).parent / 'work', 2)\n"
    )
    parent = subprocess.Popen([sys.executable, tmp_path / "run.py"], env=os.environ | {"PYTHONPATH": str(ROOT)})
    workers = wait_for(lambda: [int(path.name) for path in tmp_path.glob("[0-9]*")], 2)
    parent.send_signal(how)
    assert parent.wait(20) == (143 if how is signal.SIGTERM else -how)
    wait_for(lambda: [pid for pid in workers if not Path(f"/proc/{pid}").exists()], 2)


def wait_for(found: Callable[[], list[int]], number: int) -> list[int]:
    deadline = time.monotonic() + 20
    while len(found()) < number:
        assert time.monotonic() < deadline, f"{found()}"
        time.sleep(0.05)
    return found()


def test_what_no_other_process_can_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="lambda"):
        executor.each(lambda task: task, ["a"], tmp_path, 1)


def test_an_unknown_executor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_EXECUTOR", "kubernetes")
    with pytest.raises(SmeltError, match="SMELT_EXECUTOR is 'kubernetes'; there are local, ray, slurm"):
        executor.each(tasks.count, ["a"], tmp_path, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Ray: a cluster of this machine


def test_ray_gives_the_same_bytes_and_the_same_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = shout_all(tmp_path, "here", 1)
    monkeypatch.setenv("SMELT_EXECUTOR", "ray")
    monkeypatch.setattr(executor, "_POLL", 0.05)
    assert shout_all(tmp_path, "there", 2) == here
    with pytest.raises(SmeltError, match=r"^page 3 is upside down; turn it$"):
        executor.each(tasks.fail, ["user"], tmp_path / "work", 1)


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_EXECUTOR", "ray")
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python makes of a package that is not there
    with pytest.raises(SmeltError, match=r"needs Ray: .*--group ray"):
        executor.each(tasks.fail, ["a"], tmp_path, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Slurm: commands that stand in for it run the script that datatrove writes, every task of its array for real

SBATCH = r"""#!/bin/bash
# sbatch [--export=...] SCRIPT: run the array's tasks one after the other, in the background
set -m  # a process group for each job
[ -n "$REFUSE" ] && { echo "sbatch: error: invalid partition specified" >&2; exit 1; }
job=$((42 + $(ls "$SLURM_HOME" | grep -c script))); script=$SLURM_HOME/script$job
cp "${@: -1}" "$script"
option() { sed -n "s/^#SBATCH --$1=//p" "$script"; }
touch "$SLURM_HOME/queue$job"
(
  echo $BASHPID > "$SLURM_HOME/queue$job"
  for index in $(seq 0 "$(option array | sed 's/^0-//; s/%.*//')"); do
    log=$(option output | sed "s/%A/$job/; s/%a/$index/")
    SLURM_ARRAY_TASK_ID=$index SLURM_NODELIST=here bash "$script" > "$log" 2>&1
  done
  rm "$SLURM_HOME/queue$job"
) > /dev/null 2>&1 &
echo "Submitted batch job $job"
"""
SQUEUE = r"""#!/bin/bash
[ "$1 $2" = "--noheader --jobs" ] && [ -e "$SLURM_HOME/queue$3" ] && echo "$3 here"
"""
SCANCEL = r"""#!/bin/bash
echo "$@" >> "$SLURM_HOME/cancelled"; [ -e "$SLURM_HOME/queue$1" ] && kill -KILL -- "-$(cat "$SLURM_HOME/queue$1")"
"""
SCONTROL = r"""#!/bin/bash
echo here
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder."""
    home = tmp_path / "slurm"
    home.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_HOME", str(home))
    monkeypatch.setenv("SMELT_EXECUTOR", "slurm")
    monkeypatch.setenv("SMELT_SLURM_PARTITION", "cpu")
    monkeypatch.setenv("SMELT_SLURM_TIME", "00:10:00")
    monkeypatch.setattr(executor, "_POLL", 0.05)
    monkeypatch.setattr(executor, "_GRACE", 0.5)
    return home


def test_slurm_gives_the_same_bytes(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_SLURM_MEM_PER_CPU", "8G")
    monkeypatch.setenv("SMELT_SLURM_ACCOUNT", "physics")
    monkeypatch.setenv("SMELT_WORKERS", "3")
    there = shout_all(tmp_path, "there", 1)
    script = (tmp_path / "there.work/launch_script.slurm").read_text()
    options = dict(line.removeprefix("#SBATCH --").split("=") for line in script.splitlines() if "#SBATCH" in line)
    assert options == {
        "partition": "cpu",
        "time": "00:10:00",
        "mem-per-cpu": "8G",
        "account": "physics",
        "array": "0-3%3",
        "cpus-per-task": "1",
        "nodes": "1",
        "job-name": "smelt",
        "output": f"{tmp_path}/there.work/slurm_logs/%A_%a.out",
        "error": f"{tmp_path}/there.work/slurm_logs/%A_%a.out",
    }
    assert f"PYTHONPATH={ROOT}" in script
    monkeypatch.setenv("SMELT_EXECUTOR", "local")
    assert shout_all(tmp_path, "here", 1) == there


def test_slurm_runs_what_is_left(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path / "in", 3)
    executor.each(tasks.count, paths[:2], tmp_path / "work", 1)
    found = executor.each(tasks.count, paths, tmp_path / "work", 1)
    assert [result["letters"] for result in found] == [0, 1, 2]
    assert runs(tmp_path / "in") == ["f0", "f1", "f2"]
    monkeypatch.setenv("REFUSE", "1")  # nothing is left to do, so nothing is submitted
    assert executor.each(tasks.count, paths, tmp_path / "work", 1) == found


def test_a_failure_on_slurm_is_one_message_and_cancels_the_rest(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"^page 3 is upside down; turn it$"):
        executor.each(tasks.fail, ["a", "user", "slow"], tmp_path / "work", 1)
    assert (slurm / "cancelled").read_text() == "42\n"


def test_a_task_that_slurm_kills_is_noticed(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"1 of 2 tasks ended without a result \(the first is task 1\).*slurm_logs"):
        executor.each(tasks.fail, ["a", "killed"], tmp_path / "work", 1)


def test_a_refused_job_and_a_missing_option_are_told_of(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(SmeltError, match=r"sbatch refused the job.*launch_script\.slurm"):
        executor.each(tasks.fail, ["a"], tmp_path / "work", 1)
    monkeypatch.setenv("SMELT_SLURM_ARRAY", "0-1")
    with pytest.raises(SmeltError, match="--array cannot be set"):
        executor.each(tasks.fail, ["a"], tmp_path / "work", 1)
    monkeypatch.delenv("SMELT_SLURM_TIME")
    with pytest.raises(SmeltError, match="needs SMELT_SLURM_TIME, for instance"):
        executor.each(tasks.fail, ["a"], tmp_path / "work", 1)
