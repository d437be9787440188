"""What was measured, kept by its content, so that a run that was killed, or is repeated, measures it once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from lib.pipeline.hashes import hash_value
from lib.pipeline.run import Run


class Kept:
    """Parts that were measured, by their content."""

    def __init__(self, run: Run) -> None:
        lineage = run.lineage()
        self.inputs: dict[str, str] = lineage["inputs"]
        self._run, self._maker = run, [lineage["code"], lineage["pins"]]

    def part(self, of: str, name: str, inputs: Any, measure: Callable[[], Any]) -> Any:
        """What `measure` returns for `inputs`, read if an earlier run came that far. Both are plain values.

        Args:
            of: the dependency that is measured.
        """
        folder = self._run.scratch_home.parent / "measured"
        path = folder / f"{name}-{hash_value([*self._maker, self.inputs[of], name, inputs])[:24]}.json"
        if not path.exists():
            self._run.log(f"measuring {name.replace('_', ' ')}")
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            partial.write_text(json.dumps(measure()), encoding="utf-8")
            partial.replace(path)
        return json.loads(path.read_text(encoding="utf-8"))
