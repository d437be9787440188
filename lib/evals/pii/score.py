"""Recall and precision of a search for personal data on labelled documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lib.evals.estimates import mean
from lib.evals.pii.labelled import Span
from lib.text.pii.found import NAMES, PATTERNED

GROUPS = {"patterned": PATTERNED, "names": NAMES}


def _group(kind: str) -> Sequence[str]:
    return NAMES if kind in NAMES else (kind,)


def _covered(text: str, span: Span, by: Iterable[Span]) -> bool:
    """Whether every letter and digit of `span` lies in one of `by`: half a name redacted is a name that leaks."""
    hidden = {place for other in by for place in range(other.start, other.end)}
    return all(place in hidden for place in range(span.start, span.end) if text[place].isalnum())


class Score:
    """Counts over documents.

    A labelled value counts as found when it is covered whole by findings of its type; a name (person, place,
    organisation) when it is covered by names of any of the three, and `recall_typed` says how often the type is right
    too. A finding is right when more than half of it lies in labelled values of its type, or for names of the three.
    """

    def __init__(self, types: Iterable[str]) -> None:
        """`types`: those that are looked for; labels of others are passed over."""
        self._types = frozenset(types)
        self._found: dict[str, list[float]] = {kind: [] for kind in (*PATTERNED, *NAMES)}
        self._typed: dict[str, list[float]] = {kind: [] for kind in NAMES}
        self._right: dict[str, list[float]] = {kind: [] for kind in (*PATTERNED, *NAMES)}
        self.missed: list[tuple[str, str, str]] = []  # type, value, context
        self.wrong: list[tuple[str, str, str]] = []

    def add(self, text: str, labels: Sequence[Span], findings: Sequence[Span]) -> None:
        for label in labels:
            if label.type not in self._types:
                continue
            by = [one for one in findings if one.type in _group(label.type)]
            found = _covered(text, label, by)
            self._found[label.type].append(float(found))
            if label.type in NAMES:
                self._typed[label.type].append(float(_covered(text, label, [o for o in by if o.type == label.type])))
            if not found:
                self.missed.append(_quote(text, label))
        for finding in findings:
            kinds = _group(finding.type)
            inside = sum(
                max(0, min(finding.end, label.end) - max(finding.start, label.start))
                for label in labels
                if label.type in kinds
            )
            right = 2 * inside > finding.end - finding.start
            self._right[finding.type].append(float(right))
            if not right:
                self.wrong.append(_quote(text, finding))

    def metrics(self) -> dict[str, Any]:
        """Per type and per group: `labelled`, `found`, and `recall` and `precision` with their standard errors."""
        rows = {kind: (kind,) for kind in self._found} | GROUPS
        return {
            name: {
                "labelled": len(recall := [hit for kind in kinds for hit in self._found[kind]]),
                "found": len(precision := [hit for kind in kinds for hit in self._right[kind]]),
                "recall": mean(recall).as_metric(),
                "precision": mean(precision).as_metric(),
            }
            | (
                {"recall_typed": mean([hit for kind in kinds for hit in self._typed[kind]]).as_metric()}
                if kinds[0] in NAMES
                else {}
            )
            for name, kinds in rows.items()
        }


def _quote(text: str, span: Span) -> tuple[str, str, str]:
    context = text[max(0, span.start - 40) : span.end + 20].replace("\n", "⏎")
    return span.type, text[span.start : span.end], context
