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
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from tqdm import tqdm

from lib import params as parameters

T = TypeVar("T")


class SmeltError(Exception):
    """Something the user can mend. The message says what, where and what to do; no traceback is shown."""


# ----------------------------------------------------------------------------------------------------------------------
# dvc.yaml


def _substitute(value: Any, item: str | None, fields: dict[str, Any]) -> Any:
    """Fill in DVC's `${key}`, `${item}` and `${item.x}` in strings, lists and mappings."""
    if isinstance(value, str):
        for name, text in {"key": item, "item": item, **{f"item.{key}": text for key, text in fields.items()}}.items():
            value = value.replace("${" + name + "}", str(text))
        return value
    if isinstance(value, list):
        return [_substitute(entry, item, fields) for entry in value]
    if isinstance(value, dict):
        return {_substitute(key, item, fields): _substitute(entry, item, fields) for key, entry in value.items()}
    return value


def _path(entry: str | dict) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


class Declaration:
    """What dvc.yaml says of one stage: `deps`, `params` (of params.yaml), `pins` (of pyproject.toml) and `outs`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.desc: str = body["desc"]
        self.deps: list[str] = body.get("deps", [])
        self.params = [entry for entry in body.get("params", []) if isinstance(entry, str)]
        self.pins = [
            key
            for entry in body.get("params", [])
            if isinstance(entry, dict)
            for key in entry.get("pyproject.toml", [])
        ]
        self.outs = [_path(entry) for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])]

    @property
    def code(self) -> list[str]:
        return [dep for dep in self.deps if dep.startswith(("lib/", "stages/"))]

    @property
    def data(self) -> list[str]:
        return [dep for dep in self.deps if dep not in self.code]


def declarations(root: Path) -> dict[str, Declaration]:
    """Every stage of dvc.yaml by its DVC name (`clean@wiki`), templates filled in."""
    values = parameters.read_yaml(root / "params.yaml")
    found = {}
    for name, body in parameters.read_yaml(root / "dvc.yaml")["stages"].items():
        if "foreach" in body:
            items = body["foreach"]
            if isinstance(items, str):
                items = values[items.removeprefix("${").removesuffix("}")]
            for item, fields in items.items():
                found[f"{name}@{item}"] = Declaration(_substitute(body["do"], item, fields))
        elif "matrix" in body:
            ((axis, items),) = body["matrix"].items()
            for item in items:
                found[f"{name}@{item}"] = Declaration(_substitute(body, item, {axis: item}))
        else:
            found[name] = Declaration(body)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Hashes


def _files(folder: Path) -> list[Path]:
    """The files that .dvcignore does not leave out, in a fixed order."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".whl")
    )


def hash_file(path: Path) -> str:
    """sha256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """sha256 of a file's content, or of the names and contents of the files below a folder."""
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.relative_to(path)} {hash_file(file)}\n".encode())
    return digest.hexdigest()


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


def hash_value(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# One run of one stage


class Run:
    """One run of one stage: its parameters, its paths, its progress, and its place to keep checkpoints."""

    def __init__(self, root: Path, name: str, item: str | None) -> None:
        self.root, self.name, self.item = root, name, item
        self.id = f"{name}@{item}" if item else name
        known = declarations(root)
        if self.id not in known:
            items = [key.partition("@")[2] for key in known if key.startswith(f"{name}@")]
            hint = f"; there are: {', '.join(items)}" if items else ""
            raise SmeltError(f"dvc.yaml has no stage {self.id!r}{hint}")
        self.declared = known[self.id]
        self.reports = root / "reports" / name / (item or "")
        self._params = parameters.load(root / "params.yaml")
        self._staged: dict[str, Path] = {}
        self.observed: dict[
            str, Any
        ] = {}  # what this machine did (device, rates): for the run record, never for metrics
        self._identity = self._code_and_params()
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
        tqdm.write(f"{self.id}: {message}", file=sys.stderr)

    def progress(self, items: Iterable[T], total: int | None, unit: str) -> Iterable[T]:
        """Show rate and time left while iterating; a line now and then when no one watches."""
        watched = sys.stderr.isatty()
        interval = 0.2 if watched else 20
        return tqdm(items, total=total, unit=unit, desc=self.id, mininterval=interval, maxinterval=interval,
                    unit_scale=True, dynamic_ncols=watched, leave=watched)  # fmt: skip

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

    def _code_and_params(self) -> dict[str, Any]:
        with open(self.root / "pyproject.toml", "rb") as stream:
            project = tomllib.load(stream)
        values = parameters.load(self.root / "params.yaml")
        return {
            "code": {path: hash_path(self.root / path) for path in self.declared.code},
            "params": {name: _plain(_lookup(values, name)) for name in self.declared.params},
            "pins": {name: _lookup(project, name) for name in self.declared.pins},
        }

    def _check_identity(self) -> None:
        now = self._code_and_params()
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


# ----------------------------------------------------------------------------------------------------------------------
# The run record


def _energy_microjoules() -> dict[str, int]:
    """Counters of the processor packages (RAPL), where the kernel lets this user read them."""
    counters = {}
    for path in Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj"):
        try:
            counters[path.parent.name] = int(path.read_text())
        except OSError:
            return {}
    return counters


def _versions(pins: dict[str, list[str]]) -> dict[str, str]:
    names = sorted({pin.partition("==")[0] for group in pins.values() for pin in group})
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class Record:
    """Measures one run from its making to `finish`."""

    def __init__(self) -> None:
        self._started, self._energy = time.time(), _energy_microjoules()

    def finish(self, run: Run) -> dict[str, Any]:
        used = [after - self._energy[name] for name, after in _energy_microjoules().items() if name in self._energy]
        readable = used and min(used) >= 0  # the counters wrap around every few hours
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return {
            "stage": run.id,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
            "seconds": round(time.time() - self._started, 2),
            "peak_memory_mib": round(peak / 1024, 1),  # of the largest single process
            "energy_joules": round(sum(used) / 1e6, 1) if readable else None,
            "host": platform.node(),
            "system": platform.platform(),
            "cpu": _cpu_model(),
            "workers": run.workers,
            "versions": _versions(run._identity["pins"]),
            **run.observed,
        }


# ----------------------------------------------------------------------------------------------------------------------
# The entry point


def _stop(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def execute(root: Path, name: str, item: str | None, main: Callable[[Run], None]) -> None:
    """Run `main` as the stage `name[@item]` of the repository at `root`."""
    record = Record()
    run = Run(root, name, item)
    # The lock lies outside the folder that success removes: a waiting process must not hold a deleted file.
    with exclusive(run.scratch_home.parent / f"{run.id}.lock"):
        try:
            main(run)
            run.publish(record.finish(run))
        except BaseException:
            run.discard()
            raise


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"the disk is full{f' (writing {error.filename})' if error.filename else ''}. Free some space and run the "
            f"same command again; nothing half-written was left, and checkpoints are kept"
        )
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def stage(main: Callable[[Run], None]) -> Callable[[], None]:
    """Make `main` a command: `python -m stages.NAME [ITEM]`, NAME being the file's name."""

    @functools.wraps(main)
    def command() -> None:
        name = Path(main.__code__.co_filename).stem
        root = Path.cwd()
        parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=main.__doc__ or main.__module__)
        parser.add_argument("item", nargs="?", help="which one, for a stage that dvc.yaml has several of")
        signal.signal(signal.SIGTERM, _stop)
        try:
            execute(root, name, parser.parse_args().item, main)
        except (SmeltError, parameters.ParamsError) as error:
            sys.exit(f"{name}: error: {error}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            sys.exit(f"{name}: error: {_explain(error)}")

    return command
