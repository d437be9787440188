"""A git and DVC repository of a test's own, which nothing of the user's or of this repository reaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def shell(root: Path, *command: str) -> str:
    """What a command that has to succeed prints; `dvc` is the one of this Python."""
    program = {"dvc": [sys.executable, "-m", "dvc"]}.get(command[0], [command[0]])
    done = subprocess.run([*program, *command[1:]], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def create(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make an empty one in the new folder `root`, and have every later command use it as long as `patch` lasts."""
    patch.setenv("DVC_NO_ANALYTICS", "1")
    patch.setenv("DVC_SITE_CACHE_DIR", str(root.with_name("site")))
    for role in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{role}_NAME", "tester")
        patch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "DVC_ROOT"):
        patch.delenv(name, raising=False)
    root.mkdir()
    shell(root, "git", "init", "--quiet")
    shell(root, "dvc", "init", "--quiet")


def commit(root: Path, title: str) -> str:
    """Commit everything; the new commit's hash."""
    shell(root, "git", "add", "--all")
    shell(root, "git", "commit", "--quiet", "--message", title)
    return shell(root, "git", "rev-parse", "HEAD")
