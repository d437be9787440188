"""Where else curves go while a run runs: SMELT_SINKS=tensorboard,wandb,trackio, through accelerate's trackers.

Off by default. They are for looking on, and no result depends on them: what a run leaves is in reports/. Their files
are in .sinks/, and their packages in the dependency group `sinks`.
"""

from __future__ import annotations

import os
from pathlib import Path

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run

PROJECT = "smelt"
NAMES = ("tensorboard", "wandb", "trackio")


def _tracker(name: str, run_id: str, folder: Path) -> GeneralTracker:
    """Not started yet."""
    if name == "tensorboard":
        return TensorBoardTracker(run_id, logging_dir=folder)
    if name == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")  # `wandb sync` sends it later; WANDB_MODE=online at once
        return WandBTracker(PROJECT, name=run_id, dir=str(folder), settings={"console": "off"})
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    return TrackioTracker(PROJECT, name=run_id, embed=False)


class Sinks:
    """The sinks that SMELT_SINKS names, comma separated.

    Raises:
        SmeltError: it names an unknown one, or one that is not installed.
    """

    def __init__(self, run: Run) -> None:
        asked = [name.strip() for name in os.environ.get("SMELT_SINKS", "").split(",") if name.strip()]
        unknown = [name for name in asked if name not in NAMES]
        if unknown:
            raise SmeltError(f"SMELT_SINKS names {', '.join(unknown)}; there are: {', '.join(NAMES)}")
        self._trackers = []
        for name in asked if not run.follows else ():
            folder = run.scratch_home.parent.with_name(".sinks") / name
            folder.mkdir(parents=True, exist_ok=True)
            tracker = _tracker(name, run.id, folder)
            try:
                tracker.start()
            except ModuleNotFoundError as error:
                raise SmeltError(
                    f"SMELT_SINKS names {name}, and the package {error.name} is not installed; "
                    f"`.venv/bin/python -m pip install {name}`, or leave {name} out"
                ) from None
            self._trackers.append(tracker)

    def log(self, values: dict[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
