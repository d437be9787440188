"""Tasks as a Slurm array job. datatrove writes and submits the script; here are its options, the queue and the end.

SMELT_SLURM_PARTITION and SMELT_SLURM_TIME say where and for how long a task may run. Any other SMELT_SLURM_<OPTION>
becomes sbatch's --<option>: SMELT_SLURM_MEM_PER_CPU=8G, SMELT_SLURM_ACCOUNT=..., SMELT_SLURM_QOS=...
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from lib.pipeline.errors import SmeltError

_PREFIX = "SMELT_SLURM_"
_OURS = ("array", "output", "error", "job-name")
_ROOT = Path(__file__).resolve().parents[2]  # where `lib` is imported from
_BIN = Path(sys.executable).parent  # of datatrove's launch_pickled_pipeline


class _Executor(SlurmPipelineExecutor):
    """datatrove's, which knows all of its jobs: more tasks than an array may hold become several."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.jobs: list[str] = []
        super().__init__(*arguments, job_id_retriever=self._submitted, **options)

    def _submitted(self, said: str) -> str:
        self.jobs.append(said.split()[-1])  # "Submitted batch job 123"
        return self.jobs[-1]

    def launch_merge_stats(self) -> None:
        """A job of its own to add up statistics that nobody reads is left out."""

    def submit(self) -> None:
        """Submit what is not done yet.

        Raises:
            SmeltError: sbatch refuses it.
        """
        try:
            self.launch_job()
        except subprocess.CalledProcessError:
            script = self.logging_dir.resolve_paths("launch_script.slurm")
            raise SmeltError(f"sbatch refused the job (what it says is above); its script is {script}") from None

    def in_queue(self) -> bool:
        """Whether a task waits or runs. Jobs run one after the other, and Slurm forgets one soon after its end."""
        if not self.jobs:
            return False
        asked = ["squeue", "--noheader", "--jobs", self.jobs[-1]]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        return found.returncode == 0 and bool(found.stdout.strip())

    def cancel(self) -> None:
        """Cancel what is left; nothing happens if nothing is."""
        if self.jobs:
            subprocess.run(["scancel", *self.jobs], capture_output=True, check=False)


def executor(step: PipelineStep, tasks: int, folder: Path) -> _Executor:
    """What runs the tasks as an array job, with logs and marks in `folder`.

    Raises:
        SmeltError: there is no sbatch, or an option is missing or not free to choose.
    """
    given = {
        name.removeprefix(_PREFIX).lower().replace("_", "-"): value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIX)
    }
    missing = [f"{_PREFIX}{name.upper()}" for name in ("partition", "time") if not given.get(name)]
    if missing:
        raise SmeltError(f"SMELT_EXECUTOR=slurm needs {' and '.join(missing)}, for instance {_PREFIX}TIME=04:00:00")
    if taken := [name for name in _OURS if name in given]:
        raise SmeltError(f"sbatch's --{', --'.join(taken)} cannot be set: Smelt sets it itself")
    for command in ("sbatch", "squeue", "scancel"):
        if not shutil.which(command):
            raise SmeltError(f"SMELT_EXECUTOR=slurm needs the command {command}: run this where jobs are submitted")
    return _Executor(
        [step],
        tasks=tasks,
        time=given.pop("time"),
        partition=given.pop("partition"),
        qos=given.pop("qos", ""),
        workers=int(os.environ.get("SMELT_WORKERS") or -1),
        job_name="smelt",
        env_command=f"export PYTHONPATH={shlex.quote(str(_ROOT))} PATH={shlex.quote(str(_BIN))}:$PATH",
        sbatch_args=given,
        logging_dir=str(folder),
        requeue=False,
        with_srun=False,
    )
