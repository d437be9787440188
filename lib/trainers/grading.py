"""Grades for what the model writes on the way: SMELT_JUDGE=1, by the judge of params.yaml.

Off by default. They are for looking on, and no result depends on them: they go to the log, sinks and the run record.
The judge is in a process of its own (lib/judge/samples.py), which is fed samples and never waited for, but a while at
the end; if it fails or its endpoint is down, that is said once and training goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run

_MODULE = "lib.judge.samples"  # started, not imported: it is no part of what makes a result
_PATIENCE = 60.0  # seconds for the last grades, after the last step


class Grader:
    """Has samples graded, if SMELT_JUDGE asks for it.

    Args:
        graded: is told the step and the mean grade, between two steps.

    Raises:
        SmeltError: SMELT_JUDGE is neither 0 nor 1.
    """

    def __init__(self, run: Run, graded: Callable[[int, float], None]) -> None:
        asked = os.environ.get("SMELT_JUDGE") or "0"
        if asked not in ("0", "1"):
            raise SmeltError(f"SMELT_JUDGE is {asked!r}; 1 has the judge of params.yaml grade samples, 0 does not")
        self._run, self._graded = run, graded
        self._wanted = asked == "1" and not run.follows
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._answers: list[dict[str, Any]] = []  # appended by the reader, taken by `_collect`

    def send(self, step: int, samples: list[dict[str, str]], asks: bool) -> None:
        """Have the samples of a step graded; tell what of earlier ones has been. `asks`: prompts are questions."""
        if not self._wanted:
            return
        self._collect()
        if not self._wanted or not samples:
            return
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(json.dumps({"step": step, "asks": asks, "samples": samples}) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._stop(f"its process ended with status {self._process.wait()}")

    def close(self) -> None:
        """Wait a while for the last grades, and end the judge."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._reader.join(0.0 if sys.exc_info()[0] else _PATIENCE)
        late = self._reader.is_alive()
        self._process.kill()
        status = self._process.wait()
        self._collect()
        if self._wanted and late:
            self._run.log(f"the judge was still at work {_PATIENCE:.0f} s after the last step, and was not waited for")
        elif self._wanted and status not in (0, -9):
            self._run.log(f"samples are not graded any more: the judge's process ended with status {status}")
        self._process = None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE], cwd=self._run.root, text=True, encoding="utf-8", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def read(lines: Any) -> None:
            for line in lines:
                self._answers.append(json.loads(line))

        self._reader = threading.Thread(target=read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        while self._answers:
            answer = self._answers.pop(0)
            if "error" in answer:
                self._stop(answer["error"])
                continue
            grades = [grade for grade in answer["grades"] if grade is not None]
            if not grades:
                continue
            mean = sum(grades) / len(grades)
            self._run.log(f"step {answer['step']}: the judge grades the samples {mean:.2f} of 5")
            self._run.observed.setdefault("sample_grades", {})[str(answer["step"])] = round(mean, 4)
            self._graded(answer["step"], mean)

    def _stop(self, why: str) -> None:
        self._wanted = False
        self._run.log(f"samples are not graded any more: {why}. Training goes on")
