"""Reads files of data/assets for the lm-eval tasks in this folder. Every row has an `id`, <file>#<line>."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from lib.evals.commands import token_f1
from lib.pipeline.errors import SmeltError

_LETTER = re.compile(r"(?m)^([A-Z])\. ?")
_LABELS = {"False": 0, "True": 1}


def _records(assets: str, asset: str, file: str, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The place of each record, and the record, which has these columns.

    Raises:
        SmeltError: the file is missing, a line is no JSON, or a record lacks a column.
    """
    path = Path(assets) / asset / file
    if not path.exists():
        raise SmeltError(f"{path} does not exist; run `dvc repro assets@{asset}`")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise SmeltError(f"{path}, line {number}: not JSON ({error})") from None
            there = record if isinstance(record, dict) else {}
            if missing := [column for column in columns if column not in there]:
                raise SmeltError(
                    f"{path}, line {number}: no column {', '.join(missing)} (there are: {', '.join(there) or 'none'}); "
                    f"mend the file, or take the task out of evaluate.tasks in params.yaml"
                )
            yield f"{file}#{number}", record


def _options(text: str) -> dict[str, str]:
    """The choices by their letters. A letter begins a line, and letters come in order: code in a choice has lines."""
    starts: list[re.Match[str]] = []
    for match in _LETTER.finditer(text):
        if not starts or ord(match[1]) == ord(starts[-1][1]) + 1:  # one of CommonsenseQA's begins at C
            starts.append(match)
    ends = [*(match.start() for match in starts[1:]), len(text)][: len(starts)]
    return {match[1]: text[match.end() : end].strip() for match, end in zip(starts, ends, strict=True)}


def choices(assets: str, asset: str, file: str, passage: bool = False, **_: Any) -> dict[str, Dataset]:
    """Questions with choices: {"question": "...", "options": "A. ...\\nB. ...", "answer": "B. ..."}, and a passage.

    Raises:
        SmeltError: as `_records`, or the answer of a row is not one of its options.
    """
    rows = []
    for place, record in _records(assets, asset, file, ["question", "options", "answer", *["passage"] * passage]):
        options = _options(record["options"])
        letter = record["answer"].strip()[:1]
        if letter not in options:
            raise SmeltError(
                f"{Path(assets) / asset / file}, line {place.rpartition('#')[2]}: the answer {record['answer']!r} is "
                f"not one of the options"
            )
        rows.append(
            {
                "id": place,
                "passage": record["passage"].strip() if passage else "",
                "question": record["question"].strip(),
                "letters": list(options),
                "choices": list(options.values()),
                "gold": list(options).index(letter),
            }
        )
    return {"test": Dataset.from_list(rows)}


def yes_no(assets: str, asset: str, file: str, **_: Any) -> dict[str, Dataset]:
    """Passages with a question: {"passage": "...", "question": "...", "answer": "True"}.

    Raises:
        SmeltError: as `_records`, or an answer is neither True nor False.
    """
    rows = []
    for place, record in _records(assets, asset, file, ["passage", "question", "answer"]):
        if str(record["answer"]) not in _LABELS:
            raise SmeltError(
                f"{Path(assets) / asset / file}, line {place.rpartition('#')[2]}: the answer {record['answer']!r} is "
                f"neither True nor False"
            )
        gold = _LABELS[str(record["answer"])]
        rows.append({"id": place, "passage": record["passage"], "question": record["question"], "gold": gold})
    return {"test": Dataset.from_list(rows)}


def answers(assets: str, asset: str, file: str, **_: Any) -> dict[str, Dataset]:
    """Questions with all answers that are right: {"question": "...", "answer": ["...", "..."]}."""
    found = _records(assets, asset, file, ["question", "answer"])
    rows = [{"id": place, "question": row["question"].strip(), "answers": row["answer"]} for place, row in found]
    return {"test": Dataset.from_list(rows)}


def _plain(text: str) -> str:
    """Without case, punctuation and articles (Rajpurkar et al. 2016, SQuAD)."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(word for word in bare.split() if word not in ("a", "an", "the"))


def overlap(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Token F1 of what was said with the right answer that is nearest to it."""
    return {"f1": max(token_f1(_plain(results[0]), _plain(answer)) for answer in doc["answers"])}
