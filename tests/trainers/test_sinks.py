"""Sinks for curves: what they were given is read back with their own readers, offline."""

from __future__ import annotations

import importlib.util
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import PartialState

from lib.pipeline.errors import SmeltError
from lib.trainers.sinks import Sinks

LOSSES = {10: 4.5, 20: 3.25, 30: 2.0}


class FakeRun:
    id, follows = "pretrain", False

    def __init__(self, root: Path) -> None:
        self.scratch_home = root / ".scratch" / "pretrain"


def send(root: Path) -> Path:
    """Log LOSSES to the sinks of SMELT_SINKS; their folder."""
    PartialState(cpu=True)
    sinks = Sinks(FakeRun(root))
    for step, loss in LOSSES.items():
        sinks.log({"train/loss": loss}, step)
    sinks.close()
    return root / ".sinks"


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log format, blocks of 32 KiB
    (https://github.com/google/leveldb/blob/main/doc/log_format.md). wandb's reader of it is not for Python."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if not kind or 2**15 - place % 2**15 < 7:  # what is left of a block holds no header
            place += 2**15 - place % 2**15
            continue
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def test_tensorboard_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("SMELT_SINKS", "tensorboard")
    events = EventAccumulator(str(send(tmp_path) / "tensorboard" / "pretrain"))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("train/loss")} == LOSSES


def test_wandb_keeps_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("SMELT_SINKS", " wandb ")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = send(tmp_path)
    wandb.teardown()  # its service ends, which writes all that it still holds
    (file,) = (folder / "wandb").rglob("*.wandb")
    assert file.parent.name.startswith("offline-run-")
    logged = {}
    for data in leveldb_log(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            logged[int(items["_step"])] = float(items["train/loss"])
    assert logged == LOSSES


@pytest.mark.skipif(not importlib.util.find_spec("trackio"), reason="trackio is not installed")
def test_trackio_keeps_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_SINKS", "trackio")
    folder = send(tmp_path) / "trackio"
    with sqlite3.connect(folder / "smelt.db") as database:
        rows = dict(database.execute("select step, metrics from metrics").fetchall())
    assert rows.keys() == LOSSES.keys()


def test_a_name_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_SINKS", "tensorboard,mlflow")
    with pytest.raises(SmeltError, match=r"SMELT_SINKS names mlflow; there are: tensorboard, wandb, trackio"):
        Sinks(FakeRun(tmp_path))


def test_a_missing_package_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_SINKS", "wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python does for a module that must not be imported
    PartialState(cpu=True)
    with pytest.raises(SmeltError, match=r"the package wandb is not installed; `.*pip install wandb`"):
        Sinks(FakeRun(tmp_path))


def test_without_the_variable_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from lib.trainers import loop; "
        "sys.exit(any(name in sys.modules for name in ('wandb', 'tensorboard', 'trackio')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
