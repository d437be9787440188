"""A copy of the repository in a folder of its own, to run the real line in without touching the user's data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.preset import apply

ROOT = Path(__file__).resolve().parent.parent


class Workspace:
    """A git repository with its own DVC cache; wheels are shared with the one it was copied from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SMELT_WHEELS": os.environ.get("SMELT_WHEELS", str(ROOT / "data" / "wheels")),
            "DVC_SITE_CACHE_DIR": str(folder.parent / f"{folder.name}-site-cache"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }  # fmt: skip
        for name in ("DVC_ROOT", "DVC_STAGE", "VIRTUAL_ENV", "PYTHONPATH"):
            self.environment.pop(name, None)

    @classmethod
    def copy(cls, folder: Path) -> Workspace:
        """The files that git tracks or would track, tests/tiny.yaml laid over params.yaml, committed."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            source = ROOT / name
            # Results of the user's own runs are in git; the copy makes its own.
            if source.is_file() and not name.startswith("reports/") and name != "dvc.lock":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / name)
        workspace = cls(folder)
        workspace.set(YAML(typ="safe").load(folder / "tests" / "tiny.yaml"))
        workspace.run("git", "init", "--quiet", "--initial-branch=main")
        workspace.commit("the line")
        return workspace

    def set(self, changes: Mapping[str, Any]) -> None:
        """Change params.yaml, keeping its comments."""
        apply(self.folder / "params.yaml", changes)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str, fails: bool = False) -> str:
        """The combined output of a command that must succeed, or must fail."""
        process = self.start(*command)
        output, _ = process.communicate()
        assert (process.returncode != 0) == fails, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
        return output

    def dvc(self, *arguments: str, fails: bool = False) -> str:
        return self.run("dvc", *arguments, fails=fails)

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro` and name the stages that ran."""
        return ran(self.dvc("repro", *arguments))

    def stage(self, *arguments: str, fails: bool = False) -> str:
        name, *item = arguments
        return self.run("python", "-m", f"stages.{name}", *item, fails=fails)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def outs(self) -> dict[str, str]:
        """Path -> hash of every output in dvc.lock but the ones that carry time and host."""
        lock = YAML(typ="safe").load(self.folder / "dvc.lock")
        return {
            out["path"]: out["md5"]
            for stage in lock["stages"].values()
            for out in stage["outs"]
            if not out["path"].endswith(("run.json", "index.html"))
        }


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))
