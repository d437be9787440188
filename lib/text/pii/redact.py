"""Placeholders in place of personal data: [EMAIL_1], [PERSON_2]; one value has one placeholder within a document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document as Row
from datatrove.data import DocumentsPipeline

from lib.params.text import Pii, PiiPolicy
from lib.text.blocks import Rejects
from lib.text.pii.found import NAMES, PATTERNED, PLACEHOLDER, Found, Taken, outside
from lib.text.pii.patterns import Patterns
from lib.text.steps import Step, utf8_bytes

_BATCH_DOCUMENTS, _BATCH_CHARACTERS = 64, 500_000


class Finder:
    """Looks for the types of `settings` in texts. The model for names is loaded with the first text, if at all.

    `ner`, `places`: folders of the spaCy model and of the list of places; not read when no type of name is wanted.
    """

    def __init__(self, settings: Pii, ner: Path, places: Path) -> None:
        self._settings, self._ner, self._places = settings, ner, places
        self._patterns, self._names = Patterns(settings), None
        self.named = any(kind in NAMES for kind in settings.types)

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """Per text what was found, in order, none overlapping another. A pattern wins over a name."""
        patterned = [self._patterns.find(text) for text in texts]
        if not self.named or not texts:
            return patterned
        if self._names is None:
            # Presidio takes 6 s to import, and brings torch: only where names are looked for.
            from lib.text.pii.names import Names

            self._names = Names(self._ner, self._places, self._settings.types, self._settings.name_score)
        return [_merge(text, *pair) for text, *pair in zip(texts, patterned, self._names.find(texts), strict=True)]


def _merge(text: str, patterned: list[Found], names: list[Found]) -> list[Found]:
    """Of a name that a pattern cuts into (Jane <jane@x.org>) the rest stays, without blanks and punctuation."""
    taken = Taken((one.start, one.end) for one in patterned)
    found = list(patterned)
    for name in names:
        for start, end in outside(name.start, name.end, taken):
            while start < end and not text[start].isalnum():
                start += 1
            while start < end and not text[end - 1].isalnum() and (start, end) != (name.start, name.end):
                end -= 1
            if start < end:
                found.append(name._replace(start=start, end=end))
    return sorted(found)


class Placeholders:
    """The placeholders of one document: numbered per type in the order of appearance, one for each value.

    A given or a family name alone is the person whose full name holds it, if there is just one such person.
    """

    def __init__(self, found: Sequence[Found]) -> None:
        people: dict[str, set[str]] = {}
        for one in found:
            if one.type == "person" and " " in one.key:
                full = " ".join(sorted(one.key.split()))  # "Okafor, Ngozi" is Ngozi Okafor
                for part in one.key.split():
                    people.setdefault(part, set()).add(full)
        self._people = people
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()

    def of(self, found: Found) -> str:
        key = found.key
        if found.type == "person":
            alone = self._people.get(key, ())
            key = next(iter(alone)) if len(alone) == 1 else " ".join(sorted(key.split()))
        if (found.type, key) not in self._names:
            self._numbers[found.type] += 1
            self._names[found.type, key] = f"[{found.type.upper()}_{self._numbers[found.type]}]"
        return self._names[found.type, key]

    def put(self, text: str, found: Sequence[Found]) -> str:
        pieces, end = [], 0
        for one in found:
            pieces += [text[end : one.start], self.of(one)]
            end = one.end
        return "".join([*pieces, text[end:]])

    def reserve(self, text: str) -> None:
        """Numbers that the text has already are not given again."""
        for match in PLACEHOLDER.finditer(text):
            kind, _, number = match[0][1:-1].rpartition("_")
            self._numbers[kind.lower()] = max(self._numbers[kind.lower()], int(number))


# ----------------------------------------------------------------------------------------------------------------------
# Documents, with the records kept beside their text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _replace(value: Any, by: Iterator[str]) -> Any:
    """`value` with its strings, in the order of `_strings`, replaced."""
    if isinstance(value, str):
        return next(by)
    if isinstance(value, list):
        return [_replace(entry, by) for entry in value]
    return {key: _replace(entry, by) for key, entry in value.items()} if isinstance(value, dict) else value


class PiiBlock(Step):
    """Redacts documents, or drops those with personal data (reason `pii_<type>`), or leaves them alone (`keep`).

    Attributes:
        values: how many values were found of each type, every appearance counted.
        documents: `redacted`, how many documents were changed, and `dropped`.
    """

    name = "pii"

    def __init__(self, policy: PiiPolicy, finder: Finder | None, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._policy, self._finder = policy, finder
        self.values: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if self._policy == "keep":
            yield from data
            return
        for batch in _batches(data):
            self.documents_in += len(batch)
            self.bytes_in += sum(utf8_bytes(row.text) for row in batch)
            parts = [[row.text, *_strings(json.loads(row.metadata["records"]))] for row in batch]
            found = iter(self._finder.find([part for texts in parts for part in texts]))
            for row, texts in zip(batch, parts, strict=True):
                yield from self._apply(row, texts, [next(found) for _ in texts])

    def _apply(self, row: Row, texts: list[str], found: list[list[Found]]) -> Iterator[Row]:
        every = [one for part in found for one in part]
        self.values.update(one.type for one in every)
        if every and self._policy == "drop":
            self.documents["dropped"] += 1
            kinds = {one.type for one in every}
            self.drop(row, f"pii_{next(kind for kind in PATTERNED + NAMES if kind in kinds)}")
            return
        if every:
            self.documents["redacted"] += 1
            placeholders = Placeholders(every)
            for text in texts:
                placeholders.reserve(text)
            row.text, *strings = [placeholders.put(text, part) for text, part in zip(texts, found, strict=True)]
            records = _replace(json.loads(row.metadata["records"]), iter(strings))
            row.metadata["records"] = json.dumps(records, ensure_ascii=False)
        self.documents_out += 1
        self.bytes_out += utf8_bytes(row.text)
        yield row

    def metrics(self) -> dict[str, Any]:
        return {
            "documents_redacted": self.documents["redacted"],
            "documents_dropped": self.documents["dropped"],
            "values": dict(sorted(self.values.items())),
        }


def _batches(data: DocumentsPipeline) -> Iterator[list[Row]]:
    batch, size = [], 0
    for row in data:
        batch.append(row)
        size += len(row.text)
        if len(batch) >= _BATCH_DOCUMENTS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
