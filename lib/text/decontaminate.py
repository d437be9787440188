"""Documents that hold a part of an evaluation set: found by runs of words that they share with one of its items.

An item is searched for as its question, as its question with each choice, and as its question with all choices, with
and without letters before them. A text of `ngram` words or more is found by any `ngram` of its words in a row (13:
Brown et al. 2020, https://arxiv.org/abs/2005.14165), a shorter one as a whole, and one below `min_words` says nothing
and is left out. A choice alone counts if it is that long: "a part of the nervous system" is no leak.

datatrove's NGramsDecontIndexer and -Filter do not serve: they import lighteval, know no item shorter than an n-gram,
name the set and not the item, and hash one n-gram at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.params.text import Decontaminate, EvaluationSet
from lib.pipeline.errors import SmeltError
from lib.text.word_hashes import hashes, ngrams, words

_LABEL = re.compile(r"(?m)^\s*\(?[A-Za-z0-9][.):]\s+")  # "B. " before a choice


def _texts(record: Mapping[str, Any], fields: EvaluationSet, long: int) -> Iterator[str]:
    """All forms in which a document may hold an item. Choices are a list, or one text with a choice a line."""
    question = str(record[fields.question])
    value = record[fields.choices] if fields.choices else []
    given = [str(choice) for choice in (value if isinstance(value, list) else str(value).splitlines())]
    choices = [_LABEL.sub("", choice) for choice in given]
    lettered = [f"{chr(ord('A') + number)}. {choice}" for number, choice in enumerate(choices)]
    yield question
    yield from (choice for choice in choices if len(words(choice)) >= long)
    yield from (f"{question} {choice}" for choice in choices)
    yield from (" ".join([question, *several]) for several in (given, choices, lettered))


def _records(folder: Path, fields: EvaluationSet) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name of each item, <file>#<line>, and its record."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SmeltError(f"{folder} holds no .jsonl file; correct dedup.decontaminate.sets in params.yaml")
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise SmeltError(f"{file}, line {number}: not JSON ({error})") from None
            names = [name for name in (fields.question, fields.choices) if name]
            if not isinstance(record, dict) or not all(name in record for name in names):
                there = ", ".join(record) if isinstance(record, dict) else "no object"
                raise SmeltError(
                    f"{file}, line {number}: no field {' and '.join(names)} (there are: {there}); correct "
                    f"dedup.decontaminate.sets.{folder.name} in params.yaml"
                )
            yield f"{file.name}#{number}", record


@dataclass
class Index:
    """What to look for. A run of words is kept by the hash of its first `min_words` words, and by that of all of it."""

    ngram: int
    min_words: int
    items: list[str] = field(default_factory=list)  # <set>/<file>#<line>
    searched: list[bool] = field(default_factory=list)  # whether any text of the item is long enough
    # For each run, ascending by their beginning:
    beginning: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    whole: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    length: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    item: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))

    def find(self, text: str, numbers: np.ndarray) -> list[tuple[str, str]]:
        """The items that `text` shares words with, each with the first of these words.

        Args:
            numbers: the hashes of its words.
        """
        starts = ngrams(numbers, self.min_words)
        if not len(self.beginning) or not len(starts):
            return []
        left = np.searchsorted(self.beginning, starts)
        hits = np.flatnonzero(self.beginning[np.minimum(left, len(self.beginning) - 1)] == starts)
        found: dict[int, tuple[int, int]] = {}
        for place in hits.tolist():
            for run in range(left[place], np.searchsorted(self.beginning, starts[place], "right")):
                length, item = int(self.length[run]), int(self.item[run])
                here = ngrams(numbers[place : place + length], length)
                if item not in found and len(here) and here[0] == self.whole[run]:
                    found[item] = place, length
        if not found:
            return []
        said = words(text)
        return [
            (self.items[item], " ".join(said[place : place + length]))
            for item, (place, length) in sorted(found.items())
        ]

    def report(self, found: Collection[str]) -> dict[str, dict[str, int]]:
        """For each set: its items, those too short to be searched for, and those that were `found`."""
        figures: dict[str, dict[str, int]] = {}
        for item, searched in zip(self.items, self.searched, strict=True):
            of_set = figures.setdefault(set_of(item), {"items": 0, "too_short": 0, "found": 0})
            of_set["items"] += 1
            of_set["too_short"] += not searched
            of_set["found"] += item in found
        return figures


def set_of(item: str) -> str:
    """The set of an item <set>/<file>#<line>: its file."""
    return item.rpartition("#")[0]


def build(folders: Mapping[str, Path], params: Decontaminate) -> Index:
    """Index the evaluation sets: name -> folder of .jsonl files.

    Raises:
        SmeltError: a folder has no such file, or a record lacks a field.
    """
    index = Index(params.ngram, params.min_words)
    runs: list[tuple[int, int, int, int]] = []
    for name, folder in sorted(folders.items()):
        for place, record in _records(folder, params.sets[name]):
            before = len(runs)
            for text in _texts(record, params.sets[name], params.ngram):
                numbers = hashes(words(text))
                if len(numbers) < params.min_words:
                    continue
                length = min(len(numbers), params.ngram)
                wholes = ngrams(numbers, length)
                beginnings = ngrams(numbers, params.min_words)[: len(wholes)]
                item = len(index.items)
                runs += [(b, w, length, item) for b, w in zip(beginnings.tolist(), wholes.tolist(), strict=True)]
            index.searched.append(len(runs) > before)
            index.items.append(f"{name}/{place}")
    columns = list(zip(*sorted(set(runs)), strict=True)) or [()] * 4
    index.beginning, index.whole = np.array(columns[0], np.uint64), np.array(columns[1], np.uint64)
    index.length, index.item = np.array(columns[2], np.uint8), np.array(columns[3], np.uint32)
    return index
