"""Which of a teacher's items stay: those without personal data and evaluation items, and one of those alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.params.text import Dedup
from lib.sources.teacher.passages import Passage
from lib.text import dedup
from lib.text.decontaminate import Index
from lib.text.documents import write_documents
from lib.text.pii.found import PLACEHOLDER
from lib.text.pii.redact import Finder


@dataclass
class Item:
    """What came of one passage and one kind: a conversation, or the reason why there is none."""

    kind: str
    passage: Passage
    answer: Mapping[str, str] = field(default_factory=dict)  # the fields that the teacher wrote
    messages: list[dict[str, str]] = field(default_factory=list)
    reason: str | None = None
    detail: str = ""

    @property
    def id(self) -> str:
        return f"{self.passage.id}/{self.kind}"

    @property
    def text(self) -> str:
        """What the teacher wrote."""
        return "\n".join(self.answer.values())

    def reject(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


def left(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.reason is None]


def reject_personal(items: Sequence[Item], sources: Mapping[str, Any], finder: Callable[[], Finder]) -> None:
    """Those of sources whose personal data is not kept, if they hold some (`pii_<type>`). Placeholders are none."""
    looked_at = [item for item in left(items) if sources[item.passage.document.source].pii != "keep"]
    if not looked_at:
        return
    texts = [PLACEHOLDER.sub(" ", item.text) for item in looked_at]
    for item, found in zip(looked_at, finder().find(texts), strict=True):
        if found:
            item.reject(f"pii_{found[0].type}", f"{len(found)} values")


def reject_known(items: Sequence[Item], params: Dedup, seed: int, index: Index, folder: Path, workers: int) -> None:
    """Those that hold an item of an evaluation set (`contaminated`), and all but one of those alike.

    As `dedup` does it for documents; of duplicates, the one with the smaller id stays.
    """
    stay = left(items)
    shard = folder / "items" / "00000.parquet"
    write_documents(shard.parent, (item.passage.document._replace(id=item.id, text=item.text) for item in stay))
    found = dedup.find([shard], params, seed, index, lambda source, licence: (), folder / "minhash", workers)
    for row, removed in found.removed.get(0, {}).items():
        stay[row].reject(removed.reason, ", ".join(removed.because))


def counts(items: Sequence[Item], key: Callable[[Item], str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each name: how many were asked for, kept and rejected, and why."""
    figures = {}
    for name in names:
        own = [item for item in items if key(item) == name]
        reasons = Counter(item.reason for item in own if item.reason is not None)
        figures[name] = {
            "asked": len(own),
            "kept": len(left(own)),
            "rejected": reasons.total(),
            "reasons": dict(sorted(reasons.items())),
        }
    return figures
