"""Going on from the stable run of another commit, so that a longer horizon costs only what is longer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run
from lib.trainers import checkpoints
from lib.trainers.checkpoints import Record
from lib.trainers.engine import State

STABLE = "models/stable"


def start(run: Run, commit: str | None, steps: int) -> Callable[[], tuple[State, Record]] | None:
    """What `pretrain` begins with: the stable run of `commit`, fetched when it is needed; None where there is none.

    Args:
        commit: full hash; its dvc.lock records models/stable, which is in the local cache or a remote.
        steps: the new horizon.
    """
    return (lambda: _fetch(run, commit, steps)) if commit else None


def _fetch(run: Run, commit: str, steps: int) -> tuple[State, Record]:
    """Raises SmeltError: there is no such commit or no such run in it, or it is not shorter."""
    target = run.scratch / "extended"
    shutil.rmtree(target, ignore_errors=True)
    # A process of its own: it is DVC that runs this stage, holding locks of its repository, and `dvc get` takes none.
    # DVC_ROOT is the user's repository, also where this runs in a temporary workspace of `dvc exp run`.
    repository = os.environ.get("DVC_ROOT") or str(run.root)
    command = [sys.executable, "-m", "dvc", "get", repository, STABLE, "--rev", commit, "--out", str(target)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    done = subprocess.run(command, cwd=run.root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        raise SmeltError(
            f"pretrain.extend_from: {STABLE} of commit {commit} cannot be had: {reason[0].removeprefix('ERROR: ')}. "
            f"It must be a commit of this repository whose dvc.lock records {STABLE}, and the files must be in the "
            f"DVC cache or a remote (`dvc push` in the clone that made them)"
        )
    state, record = checkpoints.read_result(target)
    if record["step"] >= steps:
        raise SmeltError(
            f"pretrain.extend_from: the run of commit {commit} has {record['step']} steps already, and pretrain.tokens "
            f"asks for {steps}; raise pretrain.tokens"
        )
    run.log(f"extending the run of commit {commit[:10]} from step {record['step']} to {steps}")
    return state, record
