"""Functions that tests give to lib.text.executor: other processes import them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from lib.pipeline.errors import SmeltError
from lib.text.documents import ShardWriter, read_documents


def count(task: str) -> dict[str, Any]:
    """The letters of a file, which is noted in `runs` beside it."""
    path = Path(task)
    with open(path.parent / "runs", "a") as runs:
        runs.write(f"{path.name}\n")
    return {"name": path.name, "letters": len(path.read_text())}


def shout(shard: str, target: Path) -> int:
    """One shard to another; its number of documents comes back."""
    with ShardWriter(target / Path(shard).name) as writer:
        for document in read_documents(Path(shard)):
            writer.write(document._replace(text=document.text.upper()))
    return writer.documents


def fail(task: str) -> str:
    if task == "user":
        raise SmeltError("page 3 is upside down; turn it")
    if task == "denied":
        raise PermissionError(13, "Permission denied", "/secret")
    if task == "bug":
        raise ValueError("a bug")
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "slow":
        time.sleep(60)
    return task


def wait(folder: str) -> None:
    """Say who one is by a file of that name, and wait."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
