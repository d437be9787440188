"""Several processes for one training stage: SMELT_LAUNCHER, a prefix that starts them.

    SMELT_LAUNCHER='torchrun --nproc-per-node 2' dvc repro pretrain

The command in dvc.yaml stays `python -m stages.NAME`. That process, the parent, starts the launcher, hands signals down
and waits. Each process that the launcher starts, a worker, runs the same stage from its first line on. Worker 0 has the
stage's harness: it holds the lock, stages the outputs and writes the record, so the lock lives exactly as long as the
process that writes. The others compute with it and write nothing.

Nobody stays behind: a worker asks the kernel for SIGTERM when its launcher dies, the launcher when the parent dies, and
on SIGTERM the workers save a checkpoint and end.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.pipeline.errors import SmeltError
from lib.pipeline.run import exclusive

# Given by the parent to its workers: the file that takes the message of the one that failed.
_MESSAGE = "SMELT_WORKER_MESSAGE"
# These start Python themselves and want `-m module`; to all others (srun, mpirun) it is a command like any other.
_PYTHON_LAUNCHERS = {"torchrun", "accelerate", "torch.distributed.run", "accelerate.commands.launch"}
# What torchrun tells a worker, and what srun and Open MPI call the same.
_NAMES = {
    "RANK": ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
# torchrun kills a worker that has not ended so many seconds after SIGTERM; its own 30 are few for a checkpoint of 3B.
_GRACE_SECONDS = "120"


def launched(stage: Callable[..., None]) -> Callable[[], None]:
    """Let SMELT_LAUNCHER run a command that lib.pipeline.run.stage made in several processes."""

    @functools.wraps(stage.__wrapped__)  # the stage's main, as `stage` itself has it
    def command() -> None:
        if is_worker(os.environ):
            _work(stage)
        elif os.environ.get("SMELT_LAUNCHER"):
            name = Path(stage.__wrapped__.__code__.co_filename).stem
            try:
                supervise(Path.cwd(), name, sys.argv[1:])
            except SmeltError as error:
                sys.exit(f"{name}: error: {error}")
        else:
            stage()

    return command


def hint(devices: int) -> str | None:
    """What to say when one process is about to use one of several devices."""
    if devices < 2 or is_worker(os.environ):
        return None
    return f"one of {devices} GPUs is used; SMELT_LAUNCHER='torchrun --nproc-per-node {devices}' uses them all"


def check_devices(name: str, gpus: int) -> None:
    """Refuse several processes where they would have one device.

    Args:
        name: of the backend.
        gpus: of this machine.

    Raises:
        SmeltError: the backend has a single device, or fewer than processes were started.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not is_worker(os.environ):
        return
    if name in ("mps", "mlx"):
        raise SmeltError(f"SMELT_LAUNCHER starts several processes, and {name} has one device; unset it")
    if name in ("cuda", "rocm") and int(os.environ["LOCAL_RANK"]) >= gpus:
        raise SmeltError(f"SMELT_LAUNCHER starts more processes on a machine than it has GPUs ({gpus}); start {gpus}")


# -- the parent


def command_line(module: str, arguments: list[str]) -> list[str]:
    """The command that SMELT_LAUNCHER makes of `python -m module arguments`.

    Raises:
        SmeltError: it cannot be read, or its program is not there.
    """
    given = os.environ["SMELT_LAUNCHER"]
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise SmeltError(f"SMELT_LAUNCHER is {given!r}, which is no command: {error}") from None
    # A launcher that was installed beside this Python comes first: it starts workers with it.
    beside = str(Path(sys.executable).parent)
    program = shutil.which(words[0], path=os.pathsep.join([beside, os.environ.get("PATH", "")])) if words else None
    if program is None:
        raise SmeltError(
            f"SMELT_LAUNCHER is {given!r}, and there is no program {words[0] if words else ''!r} on PATH or beside "
            f"{sys.executable}; install it, correct the name, or unset SMELT_LAUNCHER to train in one process"
        )
    starts_python = any(Path(word).name in _PYTHON_LAUNCHERS for word in words)
    python = [] if starts_python else [sys.executable]
    return [program, *words[1:], *python, "-m", module, *arguments]


def supervise(root: Path, name: str, arguments: list[str]) -> None:
    """Run a stage under the launcher and wait for its end.

    Raises:
        SmeltError: the launcher is missing, the stage is running already, or a worker failed.
        SystemExit: a signal came, and the workers have ended.
    """
    command = command_line(f"stages.{name}", arguments)
    scratch = Path(os.environ.get("DVC_ROOT") or root) / ".scratch"
    # Worker 0 takes this lock for the run; here it only saves the time to start workers that would be refused.
    with exclusive(scratch / f"{name}.lock"):
        pass
    message = scratch / f"{name}.{os.getpid()}.message"  # where workers on other machines see it too
    environment = {**os.environ, _MESSAGE: str(message)}
    environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _GRACE_SECONDS)
    if not re.search(r"nnodes|rdzv|master", os.environ["SMELT_LAUNCHER"]):
        environment.setdefault("PET_STANDALONE", "1")  # torchrun on one machine: a free port instead of 29500
    message.unlink(missing_ok=True)
    try:
        # In a session of its own: Ctrl-C in a terminal reaches the parent alone, which hands it down once.
        process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_end_with_parent())
        with _handing_down(process) as received:
            code = process.wait()
        if received:
            raise SystemExit(128 + received[0])
        if code:
            said = message.read_text(encoding="utf-8") if message.exists() else None
            raise SmeltError(said or _unexplained(code))
    finally:
        message.unlink(missing_ok=True)


def _unexplained(code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return (
        f"the launcher {how}: a worker was killed or failed; its own message, if it had time for one, stands above. "
        f"The same command continues from the last checkpoint"
    )


@contextmanager
def _handing_down(process: subprocess.Popen) -> Iterator[list[int]]:
    """Turn the first SIGTERM or SIGINT into a SIGTERM for the launcher, which hands it to its workers."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        # One is enough: a second would interrupt torchrun while it waits for the checkpoint, and orphan its workers.
        if not received:
            process.send_signal(signal.SIGTERM)
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> Callable[[], None]:
    """A function after which the kernel sends this process SIGTERM when its parent dies. Linux; elsewhere it does
    nothing. The library is loaded here, since between fork and exec little is allowed."""
    if sys.platform != "linux":
        return lambda: None
    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1  # PR_SET_PDEATHSIG of linux/prctl.h
    return lambda: prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)


# -- a worker


def is_worker(environment: MutableMapping[str, str]) -> bool:
    """Whether a launcher started this process: with our parent, or torchrun with the stage directly.

    RANK alone says nothing (schedulers set the like for a whole job); accelerate, too, looks for LOCAL_RANK.
    """
    return _MESSAGE in environment or {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys()


def adopt(environment: MutableMapping[str, str]) -> int:
    """Name this worker's place as torch.distributed wants it, whichever launcher it was; its rank.

    Raises:
        SmeltError: the launcher does not say which worker this is, or where worker 0 is.
    """
    for name, others in _NAMES.items():
        value = next((environment[other] for other in (name, *others) if other in environment), None)
        if value is None:
            raise SmeltError(
                f"the launcher gives its processes no {name} (nor {' or '.join(others)}), so they cannot find each "
                f"other; use torchrun, accelerate launch, srun or mpirun, and let it pass the environment on"
            )
        environment[name] = value
    if "MASTER_ADDR" not in environment:
        if nodes := environment.get("SLURM_STEP_NODELIST"):
            environment["MASTER_ADDR"] = first_node(nodes)
        elif environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == environment["WORLD_SIZE"]:
            environment["MASTER_ADDR"] = "127.0.0.1"
        else:
            raise SmeltError("the processes run on several machines: set MASTER_ADDR to the name of the first")
    if "MASTER_PORT" not in environment:
        # One that all know, and that another job on the same machine is unlikely to have.
        job = environment.get("SLURM_JOB_ID") or environment.get("OMPI_MCA_ess_base_jobid") or "0"
        environment["MASTER_PORT"] = str(20000 + int(job) % 10000)
    return int(environment["RANK"])


def first_node(nodes: str) -> str:
    """The first name of a Slurm node list: `gpu[07-09,12],cpu1` is gpu07 and others."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.split(",")[0]
    return head + re.split(r"[-,\]]", rest)[0] + rest.partition("]")[2].split(",")[0]


def _work(stage: Callable[..., None]) -> None:
    """Run the stage as a worker. Of a mistake of the user only the parent speaks, once and last."""
    _end_with_parent()()
    message = os.environ.get(_MESSAGE)
    try:
        try:
            rank = adopt(os.environ)
        except SmeltError as error:
            sys.exit(f"error: {error}")
        stage(follows=rank > 0)
    except SystemExit as stop:
        if not isinstance(stop.code, str) or message is None:
            raise
        try:
            with open(message, "x", encoding="utf-8") as stream:  # the first that fails knows why
                stream.write(re.sub(r"^(\w+: )?error: ", "", stop.code))
        except FileExistsError:
            pass
        raise SystemExit(1) from None
