"""Grades what a model writes while it is trained: `python -m lib.judge.samples`, which a training stage starts.

A process of its own, because training must not wait for a judge, end with it, or depend on its code: grades are for
looking on, and no result depends on them. It reads JSON lines {"step", "asks", "samples": [{"prompt", "text"}]} and
answers each with {"step", "grades": [...]}, or with {"error"}, its last line. The judge is that of params.yaml.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lib.completion.endpoint import connect
from lib.judge.judge import Case, Judge
from lib.params.load import ParamsError, load
from lib.pipeline.errors import SmeltError


def _stay_aside() -> None:
    """Of the processors, take one, and only what training leaves of it."""
    os.nice(10)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    def say(**answer: object) -> None:
        print(json.dumps(answer), file=out, flush=True)

    out, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    _stay_aside()
    try:
        params = load(Path("params.yaml")).judge
        with connect(params.model, Path.cwd(), lambda line: None) as endpoint:
            judge = Judge(endpoint)
            for line in sys.stdin:
                asked = json.loads(line)
                cases = [Case(sample["prompt"], None, sample["text"]) for sample in asked["samples"]]
                grades = list(judge.grades(cases, "grade" if asked["asks"] else "continue"))
                if judge.stopped:
                    return say(error=f"the budget is spent: {judge.stopped}")
                say(step=asked["step"], grades=grades)
    except (SmeltError, ParamsError) as error:
        say(error=str(error))


if __name__ == "__main__":
    main()
