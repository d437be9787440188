"""One function over many tasks, on this machine or on a cluster, by datatrove's executors.

`SMELT_EXECUTOR` chooses, and changes no result: each task writes what it makes to its own place, and what it returns
comes back in the order of the tasks, whoever ran them.

    local   processes of this machine, SMELT_WORKERS of them (as many as cores, unless it is set)
    ray     the cluster at RAY_ADDRESS; without one, a cluster of this machine
    slurm   an array job, see lib/text/slurm.py

On a cluster, the repository (with `.venv` and `.scratch`) lies on a file system that all its machines share, at the
same path. SMELT_WORKERS is then how many tasks run at a time (as many as the cluster takes, unless it is set).

Killed is normal: finished tasks are marked, and the next run with the same working folder does those that are left.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from lib.pipeline.errors import MENDABLE, SmeltError, explain
from lib.text import slurm

logger.disable("datatrove")  # stages say themselves what they do

_POLL = 1.0  # seconds between two looks at what a cluster has finished
_GRACE = 60.0  # seconds for the last marks to appear: network file systems keep old listings that long


class Task(PipelineStep):
    """A pipeline of one step: task number `rank`. What it returns, or how it failed, goes to a file of its own."""

    name, type = "Task", "Smelt"

    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Any], folder: Path) -> None:
        super().__init__()
        self.function, self.tasks, self.folder = function, tasks, folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        try:
            _write(self.result(rank), self.function(self.tasks[rank]))
        except Exception as error:
            message = str(error) if isinstance(error, SmeltError) else None
            if isinstance(error, OSError) and error.errno in MENDABLE:
                message = explain(error)
            _write(self.failure(rank), {"message": message, "traceback": traceback.format_exc()})
            raise

    def result(self, rank: int) -> Path:
        return self.folder / "results" / f"{rank:05d}.json"

    def failure(self, rank: int) -> Path:
        return self.folder / "failures" / f"{rank:05d}.json"


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(aside, path)


def _raise_failure(folder: Path) -> None:
    """Raise what the first failed task met, if one failed."""
    for path in sorted((folder / "failures").glob("*.json")):
        failure = json.loads(path.read_bytes())
        if failure["message"] is not None:
            raise SmeltError(failure["message"]) from None
        raise RuntimeError(f"task {int(path.stem)} failed:\n{failure['traceback']}") from None


def each(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    folder: Path,
    workers: int,
    progress: Callable[[Iterable[int], int, str], Iterable[int]] = lambda done, total, unit: done,
) -> list[Any]:
    """Run `function` on each of `tasks`; what it returns comes back in their order, as JSON keeps it.

    Args:
        function: of a module below `lib`, for another process imports it, or a `functools.partial` of one. It writes
            aside and renames, for it may be killed and run again.
        tasks: small, best paths and numbers: every process gets all of them.
        folder: for results and marks (`run.scratch / NAME`). What is marked as done there is not run again, so the same
            folder must mean the same tasks.
        workers: processes, where this machine runs the tasks: `run.workers`.
        progress: `run.progress`, to show how many are done.

    Raises:
        SmeltError: a task raised one (its message), met a full disk or a refused permission, or was killed; or
            SMELT_EXECUTOR cannot be used as it is set.
        RuntimeError: a task raised anything else (with its traceback).
    """
    named = function.func if isinstance(function, functools.partial) else function
    if named.__module__ == "__main__" or named.__qualname__ != named.__name__:
        raise TypeError(f"{named.__qualname__} is not a function of a module that another process can import")
    kind = os.environ.get("SMELT_EXECUTOR") or "local"
    if kind not in _EXECUTORS:
        raise SmeltError(f"SMELT_EXECUTOR is {kind!r}; there are {', '.join(_EXECUTORS)}")
    shutil.rmtree(folder / "failures", ignore_errors=True)
    step = Task(function, list(tasks), folder)
    if tasks:
        for _ in progress(_EXECUTORS[kind](step, folder, workers), len(tasks), "task"):
            pass
    _raise_failure(folder)
    return [json.loads(step.result(rank).read_bytes()) for rank in range(len(tasks))]


def link(folder: Path, target: Path) -> None:
    """Give what tasks wrote below `folder` a second name below `target`, or a copy on another disk.

    The first one stays for a run that is stopped before its end: marks say that it is there.
    """

    def copy(source: str, copied: str) -> None:
        try:
            os.link(source, copied)
        except OSError:
            shutil.copyfile(source, copied)

    shutil.copytree(folder, target, copy_function=copy, ignore=shutil.ignore_patterns(".*"))


# ----------------------------------------------------------------------------------------------------------------------
# This machine


def _local(step: Task, folder: Path, workers: int) -> Iterator[int]:
    """Yields each task that is done; runs them in this process if there is no more than one worker or task.

    datatrove's own loop waits for ever for a worker that is killed, and its manager process outlives a killed parent.
    """
    executor = LocalPipelineExecutor([step], tasks=len(step.tasks), workers=workers, logging_dir=str(folder))
    left = executor.get_incomplete_ranks()
    yield from set(range(len(step.tasks))).difference(left)
    if min(workers, len(left)) <= 1:
        for rank in left:
            yield _run_one(executor, rank)
        return
    pool = _pool(workers)
    try:
        for done in as_completed([pool.submit(_run_one, executor, rank) for rank in left]):
            yield done.result()
    except BrokenProcessPool:
        _pool.cache_clear()
        raise SmeltError(
            "a worker process was killed, most often because memory ran out. Run the same command again with fewer "
            f"of them (SMELT_WORKERS={max(1, workers // 2)}); what is done is kept"
        ) from None
    except Exception:
        _pool.cache_clear()
        pool.shutdown(cancel_futures=True)
        raise
    except BaseException:  # stopped from outside: the tasks at work are not waited for
        _pool.cache_clear()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise


@functools.cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes for all phases of a stage: starting them takes a second, for what they import.

    Spawned: no fork of a process with threads, and the run record sees their memory.
    """
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _follow_the_parent)


def _follow_the_parent() -> None:
    """In a worker: Ctrl-C is for the parent, and a parent that is killed takes its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _run_one(executor: PipelineExecutor, rank: int) -> int:
    """Run one task; an error is one that can travel between processes."""
    try:
        executor._run_for_rank(rank)
    except Exception:
        _raise_failure(executor.pipeline[0].folder)
        raise
    return rank


# ----------------------------------------------------------------------------------------------------------------------
# Clusters


def _finished(executor: PipelineExecutor, step: Task, works: Callable[[], bool], logs: str) -> Iterator[int]:
    """Yields each task as its mark appears, until all are done or one has failed.

    Raises:
        SmeltError: nothing works any more, and tasks have left neither a mark nor a failure.
    """
    done: set[int] = set()
    deadline = None
    while True:
        ended = not works()  # asked first: whatever ended before has left its mark by now
        left = executor.get_incomplete_ranks()
        new = set(range(len(step.tasks))).difference(left, done)
        yield from sorted(new)
        done |= new
        if not left or any(step.failure(rank).exists() for rank in left):
            return
        deadline = (deadline or time.monotonic() + _GRACE) if ended else None
        if deadline and time.monotonic() >= deadline:
            raise SmeltError(
                f"{len(left)} of {len(step.tasks)} tasks ended without a result (the first is task {left[0]}): killed, "
                f"most often for memory or time. {logs} Run the same command again for those that are left"
            )
        time.sleep(_POLL)


def _ray(step: Task, folder: Path, workers: int) -> Iterator[int]:
    """Yields each task that is done. Ray lives in a process of its own, so that it can be ended at any moment."""
    if importlib.util.find_spec("ray") is None:
        raise SmeltError("SMELT_EXECUTOR=ray needs Ray: .venv/bin/python -m pip install -c constraints.txt --group ray")
    executor = RayPipelineExecutor(
        [step],
        tasks=len(step.tasks),
        workers=int(os.environ.get("SMELT_WORKERS") or -1),
        mem_per_cpu_gb=0,  # a core is what a task asks for; with the default 2 GiB a small machine would wait for ever
        logging_dir=str(folder),
    )
    driver = multiprocessing.get_context("spawn").Process(target=_drive_ray, args=(executor, workers))

    def works() -> bool:
        if driver.exitcode:
            raise SmeltError("Ray could not run the tasks; what it says is above")
        return driver.is_alive()

    driver.start()
    try:
        yield from _finished(executor, step, works, f"Their output is in {folder / 'logs'}.")
        if not executor.get_incomplete_ranks():
            driver.join(_GRACE)  # it ends by itself
    finally:
        driver.terminate()
        driver.join()


def _drive_ray(executor: RayPipelineExecutor, workers: int) -> None:
    _follow_the_parent()
    own: dict[str, Any] = {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        own = {"address": "local", "num_cpus": workers, "include_dashboard": False}
        # Ray's name for "on the loopback alone"; without it every part of Ray listens on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    ray.init(**own, log_to_driver=False, logging_level="WARNING")
    executor.run()
    ray.shutdown()


def _slurm(step: Task, folder: Path, workers: int) -> Iterator[int]:
    executor = slurm.executor(step, len(step.tasks), folder)
    try:
        executor.submit()
        logs = f"Their output is in {executor.slurm_logs_folder}."
        yield from _finished(executor, step, executor.in_queue, logs)
    finally:
        executor.cancel()


_EXECUTORS: dict[str, Callable[[Task, Path, int], Iterator[int]]] = {"local": _local, "ray": _ray, "slurm": _slurm}
