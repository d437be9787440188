"""Documents that hold a part of an evaluation set: found by runs of words that they share with one of its items.

An item is searched for as its question (after its context, where it has one), as its question with each choice, and as
its question with all choices, with and without letters before them. A text of `ngram` words or more is found by any
`ngram` of its words in a row (13: Brown et al. 2020, https://arxiv.org/abs/2005.14165), a shorter one as a whole. A
choice alone counts if it is `ngram` words long: "a part of the nervous system" is no leak.

Below `min_words`, "Excavator: dig cement", an item says something only where it stands by itself: as a line, as a
sentence, between quotation marks or brackets. A question alone is no item where there are choices, nor is one word.

datatrove's NGramsDecontIndexer and -Filter do not serve: they import lighteval, know no item shorter than an n-gram,
name the set and not the item, and hash one n-gram at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.params.text import Decontaminate, EvaluationSet
from lib.pipeline.errors import SmeltError
from lib.text.word_hashes import gaps, hashes, hashes_of, ngrams, words

_LABEL = re.compile(r"(?m)^\s*\(?[A-Za-z0-9][.):]\s+")  # "B. " before a choice
_BORDER = re.compile(r"""[\n.!?…:;|*#"“”„«»‹›()\[\]{}<>]|[^\w]['’‘‚`ʼ]|['’‘‚`ʼ][^\w]""")  # not the apostrophe in "it's"


_LEAST = 2  # words of an item


def _alone(around: list[str], place: int, count: int) -> bool:
    """Whether `count` words stand by themselves. `around`: what stands between the words, see `gaps`."""
    before, behind = around[place], around[place + count]
    return (not place or _BORDER.search(before) is not None) and (
        place + count == len(around) - 1 or _BORDER.search(behind) is not None
    )


def _texts(record: Mapping[str, Any], fields: EvaluationSet, long: int) -> Iterator[tuple[str, bool]]:
    """All forms in which a document may hold an item, and whether one is all of it.

    Choices are a list, or one text with a choice a line.
    """
    context = [str(record[fields.context])] if fields.context else []
    question = " ".join([*context, str(record[fields.question])])
    value = record[fields.choices] if fields.choices else []
    given = [str(choice) for choice in (value if isinstance(value, list) else str(value).splitlines())]
    choices = [_LABEL.sub("", choice) for choice in given]
    lettered = [f"{chr(ord('A') + number)}. {choice}" for number, choice in enumerate(choices)]
    yield question, not choices
    yield from ((choice, False) for choice in choices if len(words(choice)) >= long)
    yield from ((f"{question} {choice}", True) for choice in choices)
    yield from ((" ".join([question, *several]), True) for several in (given, choices, lettered))


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
            names = [name for name in (fields.context, fields.question, fields.choices) if name]
            if not isinstance(record, dict) or not all(name in record for name in names):
                there = ", ".join(record) if isinstance(record, dict) else "no object"
                raise SmeltError(
                    f"{file}, line {number}: no field {' and '.join(names)} (there are: {there}); correct "
                    f"dedup.decontaminate.sets.{folder.name} in params.yaml"
                )
            yield f"{file.name}#{number}", record


class Runs(NamedTuple):
    """Runs of words to look for, ascending by the hash of their first words."""

    beginning: np.ndarray  # uint64
    whole: np.ndarray  # uint64: the hash of all words
    length: np.ndarray  # uint8
    item: np.ndarray  # uint32


@dataclass
class Index:
    """What to look for."""

    min_words: int
    items: list[str] = field(default_factory=list)  # <set>/<file>#<line>
    searched: list[bool] = field(default_factory=list)  # whether any text of the item is
    runs: dict[int, Runs] = field(default_factory=dict)  # by how many words their beginning has, `min_words` at most

    def find(self, text: str) -> list[tuple[str, str]]:
        """The items that `text` shares words with, each with the first of these words."""
        numbers = hashes_of(text)
        found: dict[int, tuple[int, int]] = {}
        around: list[str] = []
        for count, runs in self.runs.items():
            starts = ngrams(numbers, count)
            left = np.searchsorted(runs.beginning, starts)
            hits = np.flatnonzero(runs.beginning[np.minimum(left, len(runs.beginning) - 1)] == starts)
            for place in hits.tolist():
                if count < self.min_words:
                    around = around or gaps(text)
                    if not _alone(around, place, count):
                        continue
                for run in range(left[place], np.searchsorted(runs.beginning, starts[place], "right")):
                    length, item = int(runs.length[run]), int(runs.item[run])
                    here = ngrams(numbers[place : place + length], length)
                    if item not in found and len(here) and here[0] == runs.whole[run]:
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
    index = Index(params.min_words)
    found: dict[int, set[tuple[int, int, int, int]]] = {}
    for name, folder in sorted(folders.items()):
        for place, record in _records(folder, params.sets[name]):
            item, searched = len(index.items), False
            for text, is_whole in _texts(record, params.sets[name], params.ngram):
                numbers = hashes(words(text))
                if len(numbers) < (_LEAST if is_whole else params.min_words):
                    continue
                length, count = min(len(numbers), params.ngram), min(len(numbers), params.min_words)
                wholes = ngrams(numbers, length).tolist()
                beginnings = ngrams(numbers, count)[: len(wholes)].tolist()
                found.setdefault(count, set()).update(
                    (beginning, whole, length, item) for beginning, whole in zip(beginnings, wholes, strict=True)
                )
                searched = True
            index.searched.append(searched)
            index.items.append(f"{name}/{place}")
    for count, several in sorted(found.items()):
        columns = zip(*sorted(several), strict=True)
        types = (np.uint64, np.uint64, np.uint8, np.uint32)
        index.runs[count] = Runs(*(np.array(column, type_) for column, type_ in zip(columns, types, strict=True)))
    return index
