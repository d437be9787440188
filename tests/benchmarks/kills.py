"""Training runs killed with SIGKILL at random moments must end in the bits of a run that was left alone.

    make bench-kills [ARGS="--runs 25 --seed 1"]

A small model trains for real, as the command, through `dvc repro` and through `dvc exp run`. Of the kills, half come at
any moment, half while a checkpoint is being written; a run gets one to three. Prints one line a run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lib.pipeline.hashes import hash_path
from tests.trainers import tokens
from tests.workspace import Workspace

STEPS = 200
SETTINGS = {"pretrain": {"tokens": STEPS * 256, "checkpoint_every": 5, "log_every": 10, "validate_every": 50}}
COMMANDS = {
    "the command": ("python", "-m", "stages.pretrain"),
    "dvc repro": ("dvc", "repro", "pretrain"),
    "dvc exp run": ("dvc", "exp", "run", "pretrain"),
}


class Kill(NamedTuple):
    step: int  # not before a checkpoint of this step is there
    writing: bool  # at a moment when one is being written
    delay: float  # seconds after that

    @classmethod
    def draw(cls, chance: random.Random, first: int) -> Kill:
        writing = chance.random() < 0.5
        return cls(chance.randrange(first, STEPS - 20), writing, chance.random() * (0.002 if writing else 0.05))


class Outcome(NamedTuple):
    hash: str  # of models/stable
    kills: list[str]  # what was killed when
    resumed: list[int]  # the step that each following start went on from
    output: str


def start(project: Workspace, command: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as stream:
        return subprocess.Popen(
            command, cwd=project.folder, env=project.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip


def kill_when_due(project: Workspace, process: subprocess.Popen[bytes], kill: Kill) -> str | None:
    """Wait for the moment and kill the whole group; what was going on, None when the process ended before."""
    while process.poll() is None:
        step, writing = progress(project)
        if step >= kill.step and (writing or not kill.writing):
            time.sleep(kill.delay)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            step, writing = progress(project)
            return f"{step}{' writing' if writing else ''}"
        time.sleep(0.0005)
    return None


def progress(project: Workspace) -> tuple[int, bool]:
    """The newest checkpoint, and whether another is being written."""
    names = []
    for folder in (project.folder / ".scratch/pretrain").glob("*"):
        with contextlib.suppress(OSError):  # which the end of the stage removes
            names += os.listdir(folder)
    return max((int(name[5:]) for name in names if name.startswith("step-")), default=0), "writing" in names


def run(
    project: Workspace,
    command: tuple[str, ...],
    kills: list[Kill],
    before_last: Callable[[Workspace], None] = lambda project: None,
) -> Outcome:
    """Train from nothing, killed at these moments, to the end; `before_last` is called before the last start."""
    for path in ("models/stable", "reports", ".scratch", ".dvc/cache/runs"):
        shutil.rmtree(project.folder / path, ignore_errors=True)
    (project.folder / "dvc.lock").unlink(missing_ok=True)
    log = project.folder.with_name("log.txt")
    log.unlink(missing_ok=True)
    done = []
    for kill in kills:
        process = start(project, command, log)
        moment = kill_when_due(project, process, kill)
        if moment:
            done.append(moment)
    before_last(project)
    code = start(project, command, log).wait()
    output = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{output}")
    resumed = [int(line.split("from step ")[1].split()[0]) for line in output.splitlines() if "continuing" in line]
    return Outcome(hash_path(project.folder / "models/stable"), done, resumed, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = tokens.make_workspace(Path(folder) / "project", **SETTINGS)
        alone = {name: run(project, command, []).hash for name, command in COMMANDS.items()}
        print(f"left alone, {STEPS} steps: {', '.join(f'{name} {found[:12]}' for name, found in alone.items())}")
        failed = len(set(alone.values())) > 1
        names = list(COMMANDS)
        for number in range(arguments.runs):
            # Three of five as the command, which starts quicker; the others through DVC.
            name = names[(0, 0, 0, 1, 2)[number % 5]]
            first, kills = 5, []
            for _ in range(chance.randint(1, 3)):
                kills.append(Kill.draw(chance, first))
                first = min(kills[-1].step + 10, STEPS - 30)
            found = run(project, COMMANDS[name], kills)
            same = found.hash == alone[name]
            failed |= not same or not found.kills
            print(
                f"{number + 1:3} {name:12} killed at {', '.join(found.kills):40} went on from "
                f"{', '.join(map(str, found.resumed)):16} {'the same bits' if same else 'OTHER BITS'}",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
