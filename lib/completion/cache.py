"""Answers on disk, by the content of what was asked: what was paid for once is never asked again.

Machine-local, as `.sinks` is: `.responses/` of the repository, or SMELT_RESPONSES. A file appears when it is whole; one
that cannot be read counts as missing. Files hold request and answer and no key of an endpoint.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lib.completion.types import Completion
from lib.pipeline.hashes import hash_value


def folder(root: Path) -> Path:
    """Where answers are kept. A temporary workspace (`dvc exp run --temp`) shares those of the repository."""
    return Path(os.environ.get("SMELT_RESPONSES") or Path(os.environ.get("DVC_ROOT") or root) / ".responses")


class Cache:
    """Keys are JSON values that hold all that decides an answer."""

    def __init__(self, path: Path) -> None:
        self._folder = path

    def _file(self, key: Any) -> Path:
        name = hash_value(key)
        return self._folder / name[:2] / f"{name}.json"

    def get(self, key: Any) -> Completion | None:
        try:
            return Completion(**json.loads(self._file(key).read_text(encoding="utf-8"))["completion"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: Any, completion: Completion) -> None:
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        entry = {"asked": key, "completion": completion._asdict()}
        aside.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        os.replace(aside, file)
