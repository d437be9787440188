"""Checkpoints that are whole or absent: written aside, synced, renamed; the last few kept; damage found by checksums.

<folder>/step-00000200/
    model.safetensors        the trained weights, by name
    optimizer.safetensors    <weight>.<name of the state>
    random.safetensors       the random generator of each device
    best.safetensors         the weights of the best validation, where they are kept (early stopping)
    state.json               the step and what else the loop remembers; the sha256 of the files above and of itself

Nothing in one is of a framework, a backend or a number of devices: whatever engine reads the names can go on from it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file, hash_value
from lib.trainers.engine import State

KEEP = 3
WHOLE = ("model", "optimizer", "random")  # parts that a checkpoint always has

Record = dict[str, Any]  # what the loop remembers: numbers, lists and texts. `step` is how many steps are done


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def write(folder: Path, state: State, record: Record) -> None:
    """Write a checkpoint into the folder, which is not there yet."""
    folder.mkdir(parents=True)
    parts = {f"{name}.safetensors": dict(arrays) for name, arrays in state._asdict().items() if arrays or name in WHOLE}
    for name, arrays in parts.items():
        save_file(arrays, folder / name)
    sums = {name: hash_file(folder / name) for name in parts}
    text = json.dumps({"record": record, "sha256": {**sums, "record": hash_value(record)}}, indent=1)
    (folder / "state.json").write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[State, Record]:
    """The checkpoint in a folder.

    Raises:
        DamagedError: a file is missing, cut short or changed.
    """
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        record, sums = content["record"], dict(content["sha256"])
        if hash_value(record) != sums.pop("record"):
            raise DamagedError("state.json is not what was written")
        for name, digest in sums.items():
            if hash_file(folder / name) != digest:
                raise DamagedError(f"{name} is not what was written")
        parts = {name.removesuffix(".safetensors"): load_file(folder / name) for name in sums}
        return State(**parts), record
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def read_result(folder: Path) -> tuple[State, Record]:
    """The checkpoint that a stage left as its result.

    Raises:
        SmeltError: it is damaged.
    """
    try:
        return read(folder)
    except DamagedError as error:
        raise SmeltError(
            f"{folder} is damaged ({error}); `dvc checkout --force` brings back what was written"
        ) from None


def begin_anew(state: State, record: Record) -> tuple[State, Record]:
    """The same checkpoint for a stage that has a history of its own."""
    return state, {**record, "history": {}}


def check_identity(record: Record, identity: dict[str, Any], what: str) -> None:
    """Refuse a checkpoint that another configuration made.

    Raises:
        SmeltError: with everything that differs.
    """
    made = record["identity"]
    differing = [
        f"  {name}: it has {made.get(name)!r}, this run {identity.get(name)!r}"
        for name in dict.fromkeys([*made, *identity])
        if made.get(name) != identity.get(name)
    ]
    if differing:
        raise SmeltError(f"{what} was made with another configuration:\n" + "\n".join(differing))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Store:
    """The checkpoints of one run. Writing overlaps what the caller does next; an error of it comes with the next call.

    Args:
        every: the steps between two regular checkpoints. The last KEEP of those are kept (before there is one: the
            first of all), and the newest of all.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, state: State, record: Record) -> None:
        """Begin to write the checkpoint of record["step"], after the one before is done."""
        self.wait()
        self._pending = self._writer.submit(self._write, state, record)

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the writing raised."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def newest(self, say: Callable[[str], None]) -> tuple[State, Record] | None:
        """The newest whole checkpoint. Damaged ones are set aside, with a line each."""
        for folder in reversed(self._folders()):
            try:
                return read(folder)
            except DamagedError as error:
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                say(f"checkpoint {folder.name} is damaged ({error}); set aside as {aside.name}, using the one before")
        return None

    def back(self, say: Callable[[str], None]) -> tuple[State, Record]:
        """The newest regular checkpoint, else the one that the run began with; later ones are removed.

        Where a signal had one saved has no say in this: a run that was stopped decides as one that was not.
        """
        regular = self._regular(self._folders())
        target = regular[-1] if regular else self._folders()[0]
        for later in self._folders():
            if later > target:
                shutil.rmtree(later)
        found = self.newest(say)
        if not found:
            raise SmeltError(
                f"there is no whole checkpoint in {self._folder} to roll back to; run the same command again"
            )
        return found

    def _regular(self, folders: list[Path]) -> list[Path]:
        return [folder for folder in folders if int(folder.name.removeprefix("step-")) % self._every == 0]

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _write(self, state: State, record: Record) -> None:
        final, aside = self._folder / f"step-{record['step']:08d}", self._folder / "writing"
        shutil.rmtree(aside, ignore_errors=True)
        write(aside, state, record)
        for file in aside.iterdir():
            _sync(file)
        _sync(aside)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        _sync(self._folder)
        folders = self._folders()
        for old in {*folders} - {*(self._regular(folders)[-KEEP:] or folders[:1]), folders[-1]}:
            shutil.rmtree(old)
