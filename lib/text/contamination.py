"""How much of evaluation sets is in what was trained on, after decontamination: it should be nothing.

The sets are searched for as decontamination does, by runs of its `ngram` words, and by shorter runs, which miss less
and also find phrases that say nothing. Held-out tasks count as a set of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.params.text import Decontaminate, EvaluationSet
from lib.text import decontaminate
from lib.text.decontaminate import Index

HELD_OUT = "held_out"  # the name of the set of held-out tasks
_FIELDS = EvaluationSet(question="question", choices="answer")


class Found(NamedTuple):
    """An item of a set in one text that was trained on."""

    item: str  # <set>/<file>#<line>
    text: str  # id of the document or conversation
    words: str  # the first of those that they share


def turns(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Id and messages of each conversation of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            conversation = json.loads(line)
            yield conversation["id"], [message["content"] for message in conversation["messages"]]


def write_held_out(conversations: Path, folder: Path) -> Path:
    """Questions and answers of held-out conversations as a set in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tasks.jsonl").open("w", encoding="utf-8") as stream:
        for _, messages in turns(conversations):
            item = {"question": messages[-2], "answer": messages[-1]}
            stream.write(json.dumps(item, ensure_ascii=False) + "\n")
    return folder


def indexes(folders: Mapping[str, Path], params: Decontaminate, ngrams: Iterable[int]) -> dict[int, Index]:
    """An index of the sets for each length of run. `folders`: of the sets of `params`, and of HELD_OUT."""
    sets = {**params.sets, HELD_OUT: _FIELDS}
    return {
        ngram: decontaminate.build(
            folders,
            params.model_copy(update={"sets": sets, "ngram": ngram, "min_words": min(params.min_words, ngram)}),
        )
        for ngram in ngrams
    }


def search(index: Index, texts: Iterable[tuple[str, str]]) -> list[Found]:
    """What `index` finds in (id, text), each item in each text once."""
    return [Found(item, name, words) for name, text in texts for item, words in index.find(text)]


def measure(index: Index, found: Mapping[str, list[Found]]) -> dict[str, dict[str, Any]]:
    """For each set: its items, those searched for, and by place of training how many items were found there.

    Args:
        found: what was found, by place (documents, conversations).
    """
    places = {place: {one.item for one in several} for place, several in found.items()}
    total = index.report(set().union(*places.values()))
    of_place = {place: index.report(items) for place, items in places.items()}
    return {
        name: {
            "items": figures["items"],
            "searched": figures["items"] - figures["too_short"],
            "found": figures["found"],
            **{place: reported[name]["found"] for place, reported in of_place.items()},
        }
        for name, figures in total.items()
    }
