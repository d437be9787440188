"""How much of evaluation sets is in what was trained on, after decontamination: it should be nothing.

The sets are searched for as decontamination does, by runs of its `ngram` words, and by shorter runs, which miss less
and also find phrases that say nothing. Of held-out tasks, whole questions and whole answers are searched for: pages of
one manual share names and placeholders, which are no leak.
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
_WHOLE = 255  # words: longer than a question or a command, which are then found as a whole


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


def once(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(id, text) without what comes again: a mixture may repeat a document."""
    seen = set()
    for name, text in texts:
        if name not in seen:
            seen.add(name)
            yield name, text


def build(folders: Mapping[str, Path], params: Decontaminate, ngram: int) -> Index:
    """An index of the sets by runs of `ngram` words."""
    least = min(params.min_words, ngram)
    return decontaminate.build(folders, params.model_copy(update={"ngram": ngram, "min_words": least}))


def build_held_out(conversations: Path, folder: Path, params: Decontaminate) -> Index:
    """An index of the whole questions and answers of held-out conversations, which are put in `folder` as a set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in (("questions", -2), ("answers", -1)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for _, messages in turns(conversations):
                stream.write(json.dumps({"question": messages[place]}, ensure_ascii=False) + "\n")
    sets = {HELD_OUT: EvaluationSet(context=None, question="question", choices=None)}
    return build({HELD_OUT: folder}, params.model_copy(update={"sets": sets}), _WHOLE)


def search(indexes: Mapping[str, Index], texts: Iterable[tuple[str, str]]) -> dict[str, list[Found]]:
    """What each index finds in (id, text), each item in each text once."""
    found: dict[str, list[Found]] = {name: [] for name in indexes}
    for text, content in texts:
        for name, index in indexes.items():
            found[name] += [Found(item, text, words) for item, words in index.find(content)]
    return found


def measure(index: Index, found: Mapping[str, list[Found]]) -> dict[str, dict[str, Any]]:
    """For each set: its items, those searched for, those found, and how many of them in each place of training.

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
