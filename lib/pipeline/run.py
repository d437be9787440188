"""The stage harness: what every stage of dvc.yaml has in common, and nothing that knows about text or tensors.

A stage is a function of a `Run`:

    @stage
    def main(run: Run) -> None:
        rules = run.param("clean.prose")              # typed; must be declared in dvc.yaml
        source = run.dep("data/raw/wiki")             # must be declared in dvc.yaml
        target = run.out("data/clean/wiki")           # a staging path, renamed into place when the stage succeeds

    if __name__ == "__main__":
        main()

dvc.yaml is the one place that says what a stage reads and writes; asking for anything else is an error. Around `main`:

- all of params.yaml is checked before any work;
- a lock refuses a second writer (DVC alone may be killed and leave its stage running);
- outputs are written aside and renamed at the end, so that a killed stage leaves nothing half-written;
- code and params are hashed at the start and at the end: DVC records them after the command, so a file edited meanwhile
  would be recorded as the one that made the result (https://github.com/iterative/dvc/issues/11058);
- a run record (host, versions, seconds, peak memory, energy) is written beside the results and outside their identity.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from tqdm import tqdm

from lib.params import load as parameters
from lib.pipeline import quiet  # noqa: F401
from lib.pipeline.declarations import declarations
from lib.pipeline.errors import MENDABLE, SmeltError, explain
from lib.pipeline.hashes import hash_path, hash_value
from lib.pipeline.record import Record

T = TypeVar("T")

# Arrow's own allocator keeps what was freed, for each of its threads: with it, mix needs 252 MiB for 335 MB of text,
# with the system's 205. Arrow looks when it is imported, and this module comes before it.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def _lookup(value: Any, name: str) -> Any:
    """The entry of nested sections and mappings at a dotted name."""
    for part in name.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


class Run:
    """One run of one stage: its parameters, its paths, its progress, and its place to keep checkpoints."""

    def __init__(self, root: Path, name: str, item: str | None, follows: bool = False) -> None:
        self.root, self.name, self.item = root, name, item
        # Whether this is one of several processes of one run and not the first, which alone writes and speaks.
        self.follows = follows
        self.id = f"{name}@{item}" if item else name
        self._params = parameters.load(root / "params.yaml")
        known = declarations(root)
        if self.id not in known:
            items = [key.partition("@")[2] for key in known if key.startswith(f"{name}@")]
            hint = f"; there are: {', '.join(items)}" if items else ""
            raise SmeltError(f"dvc.yaml has no stage {self.id!r}{hint}")
        self.declared = known[self.id]
        self.reports = root / "reports" / name / (item or "")
        self._staged: dict[str, Path] = {}
        self._identity = self._code_and_params(self._params)
        # What this machine did (device, rates): for the run record, never for metrics.
        self.observed: dict[str, Any] = {}
        # Experiments in temporary workspaces (`dvc exp run --temp`) resume what the main workspace began, and back.
        home = Path(os.environ.get("DVC_ROOT") or root)
        self.scratch_home = home / ".scratch" / self.id

    # -- what the stage reads

    def param(self, name: str) -> Any:
        """The typed value of a section (`pretrain`) or a key (`export.name`) that dvc.yaml declares for this stage."""
        if name not in self.declared.params:
            raise SmeltError(f"stage {self.id} reads the parameter {name!r}, which dvc.yaml does not declare for it")
        return _lookup(self._params, name)

    def dep(self, path: str) -> Path:
        """A declared dependency, or a path below one.

        Raises:
            SmeltError: it is not declared, or does not exist.
        """
        if not any(path == dep or path.startswith(dep + "/") for dep in self.declared.deps):
            raise SmeltError(f"stage {self.id} reads {path!r}, which dvc.yaml does not declare for it")
        if not (self.root / path).exists():
            raise SmeltError(f"{path} does not exist; run `dvc repro {self.id}`, which makes what comes before it too")
        return self.root / path

    # -- what the stage writes

    def out(self, path: str) -> Path:
        """A staging path for a declared output. The stage makes a file or a folder there; success renames it."""
        if self.follows:
            raise RuntimeError(f"a process that follows another is about to write {path}")
        if path not in self.declared.outs:
            raise SmeltError(f"stage {self.id} writes {path!r}, which dvc.yaml does not declare for it")
        final = self.root / path
        staging = final.with_name(f".{final.name}.partial")
        if path not in self._staged:
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove(staging)
            self._staged[path] = staging
        return staging

    def report(self, name: str, value: Any) -> None:
        """Write `value` as JSON to the declared output reports/<stage>/[<item>/]<name>."""
        path = (self.reports / name).relative_to(self.root)
        self.out(str(path)).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def metrics(self, values: dict[str, Any]) -> None:
        """Write metrics.json, nested under the stage's name so that DVC's columns never clash."""
        self.report("metrics.json", {self.name: {self.item: values} if self.item else values})

    # -- along the way

    def log(self, message: str) -> None:
        if not self.follows:
            tqdm.write(f"{self.id}: {message}", file=sys.stderr)

    def progress(self, items: Iterable[T], total: int | None, unit: str) -> Iterable[T]:
        """Show rate and time left while iterating; a line now and then when no one watches."""
        watched = sys.stderr.isatty()
        interval = 0.2 if watched else 20
        return tqdm(items, total=total, unit=unit, desc=self.id, mininterval=interval, maxinterval=interval,
                    delay=0 if watched else interval, unit_scale=True, dynamic_ncols=watched,
                    leave=watched)  # fmt: skip

    @property
    def pins(self) -> list[str]:
        """The pinned packages that this stage uses, as in pyproject.toml."""
        return sorted({pin for group in self._identity["pins"].values() for pin in group})

    @property
    def workers(self) -> int:
        """How many processes or threads to use: SMELT_WORKERS, else the cores this process may use."""
        return int(os.environ.get("SMELT_WORKERS") or len(os.sched_getaffinity(0)))

    @functools.cached_property
    def scratch(self) -> Path:
        """A folder for checkpoints, the same for the same code, params and inputs, removed when the stage succeeds."""
        inputs = {path: hash_path(self.root / path) for path in self.declared.data}
        folder = self.scratch_home / hash_value([self._identity, inputs])[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # -- identity

    def _code_and_params(self, values: parameters.Params) -> dict[str, Any]:
        with open(self.root / "pyproject.toml", "rb") as stream:
            project = tomllib.load(stream)
        return {
            "code": {path: hash_path(self.root / path) for path in self.declared.code},
            "params": {name: _plain(_lookup(values, name)) for name in self.declared.params},
            "pins": {name: _lookup(project, name) for name in self.declared.pins},
        }

    def _check_identity(self) -> None:
        now = self._code_and_params(parameters.load(self.root / "params.yaml"))
        moved = [
            name
            for kind in ("code", "params", "pins")
            for name in self._identity[kind]
            if self._identity[kind][name] != now[kind].get(name)
        ]
        if moved:
            raise SmeltError(
                f"{', '.join(moved)} changed while {self.id} was running, so its result belongs to neither version. "
                f"Run `dvc repro` again; to edit while a long stage runs, start it with `dvc exp run --temp`"
            )

    def lineage(self) -> dict[str, Any]:
        """What made this stage's outputs, by content: hashes of code and inputs, and the parameters themselves."""
        return {
            "stage": self.id,
            "code": hash_value(self._identity["code"]),
            "params": self._identity["params"],
            "pins": self._identity["pins"],
            "inputs": {path: hash_path(self.root / path) for path in self.declared.data},
        }

    def publish(self, record: dict[str, Any]) -> None:
        """Rename every output into place, after checking that all were made and that nothing moved meanwhile."""
        relative = self.reports.relative_to(self.root)
        if f"{relative}/lineage.json" in self.declared.outs:
            self.report("lineage.json", self.lineage())
        self._check_identity()
        self.report("run.json", record)
        missing = [path for path in self.declared.outs if path not in self._staged or not self._staged[path].exists()]
        if missing:
            raise RuntimeError(f"{self.id} ended without writing {', '.join(missing)}")
        for path, staging in self._staged.items():
            _remove(self.root / path)
            os.replace(staging, self.root / path)
        shutil.rmtree(self.scratch_home, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was staged. Checkpoints stay."""
        for staging in self._staged.values():
            _remove(staging)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file for as long as this process lives.

    Raises:
        SmeltError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise SmeltError(
                f"process {stream.read().strip() or '(unknown)'} is running this stage already; wait for it, or end it"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _stop(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def execute(root: Path, name: str, item: str | None, main: Callable[[Run], None], follows: bool = False) -> None:
    """Run `main` as the stage `name[@item]` of the repository at `root`.

    Args:
        follows: this is one of several processes of one run, and not the first, which has the lock and the outputs.
    """
    record = Record()
    run = Run(root, name, item, follows)
    if follows:
        main(run)
        return
    # The lock lies outside the folder that success removes: a waiting process must not hold a deleted file.
    with exclusive(run.scratch_home.parent / f"{run.id}.lock"):
        try:
            main(run)
            run.publish(record.finish(run.id, run.pins) | {"workers": run.workers} | run.observed)
        except BaseException:
            run.discard()
            raise


def stage(main: Callable[[Run], None]) -> Callable[..., None]:
    """Make `main` a command: `python -m stages.NAME [ITEM]`, NAME being the file's name."""

    @functools.wraps(main)
    def command(follows: bool = False) -> None:
        name = Path(main.__code__.co_filename).stem
        root = Path.cwd()
        parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=main.__doc__ or main.__module__)
        parser.add_argument("item", nargs="?", help="which one, for a stage that dvc.yaml has several of")
        signal.signal(signal.SIGTERM, _stop)
        try:
            execute(root, name, parser.parse_args().item, main, follows)
        except (SmeltError, parameters.ParamsError) as error:
            sys.exit(f"{name}: error: {error}")
        except OSError as error:
            if error.errno not in MENDABLE:
                raise
            sys.exit(f"{name}: error: {explain(error)}")

    return command
