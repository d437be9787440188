"""One of each text, and none of the evaluation sets.

Of duplicates, the document under the better licence stays (one that licences.allow accepts; one that asks for no
share-alike), then that of the source with the higher weight, then the one with the smaller id. A document goes only if
one that stays is similar to it: a chain of similar documents keeps more than its first.

The result depends neither on the order of shards or documents, nor on the number of workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.params.text import Dedup
from lib.text import executor, paragraphs
from lib.text.decontaminate import Index
from lib.text.documents import Document, count_documents, read_documents, read_table
from lib.text.licences import accepted, share_alike
from lib.text.minhash import EXACT, Signatures, Words, check, cluster, match, propose, similar

Preference = Callable[[str, str], tuple]


class Removed(NamedTuple):
    """Why a document goes, and because of which: the document that stays, or the items of evaluation sets."""

    reason: str
    because: list[str]
    words: str = ""  # shared with the first of these items


# ----------------------------------------------------------------------------------------------------------------------
# Which of two stays


def preference(weights: Mapping[str, float | str], allow: Collection[str]) -> Preference:
    """What of a source and a licence is smaller for the document that stays. The weight `all` is the highest."""

    @functools.cache
    def of_licence(licence: str) -> tuple[bool, bool]:
        try:
            return not accepted(licence, allow), share_alike(licence)
        except ValueError:  # not SPDX; `mix` says so
            return True, True

    def of(source: str, licence: str) -> tuple:
        weight = weights[source]
        return (*of_licence(licence), -(float("inf") if weight == "all" else float(weight)))

    return of


# ----------------------------------------------------------------------------------------------------------------------
# Steps


Repeated = Mapping[Path, frozenset[int]]  # folder of a source -> its repeated paragraphs


def find_repeated(
    tasks: list[tuple[int, Path]], folder: Path, params: Dedup, each: Callable[..., list[Any]]
) -> Repeated:
    """The paragraphs that go, for the folder of each source."""
    if params.paragraphs.documents is None:
        return {}
    each(partial(paragraphs.count, folder=folder, params=params.paragraphs), tasks)
    ranks: dict[Path, list[int]] = {}
    for rank, shard in sorted(tasks):
        ranks.setdefault(shard.parent, []).append(rank)
    return {source: paragraphs.frequent(own, folder, params.paragraphs) for source, own in ranks.items()}


def trim(document: Document, shard: Path, repeated: Repeated, params: Dedup) -> Document:
    """A document of `shard` without the repeated paragraphs of its source."""
    found = repeated.get(shard.parent)
    return document._replace(text=paragraphs.without(document.text, found, params.paragraphs)) if found else document


def scan(
    task: tuple[int, Path], folder: Path, params: Dedup, seed: int, index: Index, repeated: Repeated
) -> list[tuple[int, Removed]]:
    """Sign the documents of a shard; those that go for what they hold come back, and take no further part."""
    rank, shard = task
    gone = []

    def clean() -> Iterator[str | None]:
        for row, whole in enumerate(read_documents(shard)):
            document = trim(whole, shard, repeated, params)
            if document is not whole and not document.text.strip():
                gone.append((row, Removed("repeated_paragraphs", [])))
                yield None
                continue
            found = index.find(document.text)
            if found:
                gone.append((row, Removed("contaminated", [item for item, _ in found], found[0][1])))
            yield None if found else document.text

    Signatures(folder, params, seed).sign(clean(), rank)
    return gone


def resolve(
    members: np.ndarray, shards: list[Path], folder: Path, params: Dedup, prefer: Preference
) -> dict[int, dict[int, Removed]]:
    """In each cluster, keep every document to which none that is kept already is similar, the preferred ones first.

    Args:
        members: shard, row and cluster of each document.

    Returns:
        shard -> row -> why it goes.
    """
    known = []
    for rank in np.unique(members[:, 0]).tolist():
        here = dict(members[members[:, 0] == rank, 1:].tolist())
        first = 0
        for batch in read_table(shards[rank], ["id", "source", "licence"]):
            for row in range(first, first + len(batch)):
                if row in here:
                    id_, source, licence = (column[row - first].as_py() for column in batch)
                    known.append((here[row], *prefer(source, licence), id_, rank, row))
            first += len(batch)
    removed: dict[int, dict[int, Removed]] = {}
    with Words(folder) as kept_words:
        for _, group in groupby(sorted(known), key=lambda member: member[0]):
            kept: list[tuple[str, np.ndarray]] = []
            texts: dict[int, str] = {}  # fingerprint -> the document that stays for it
            for *_, id_, rank, row in group:
                mark = kept_words.mark(rank, row)
                if mark in texts:
                    removed.setdefault(rank, {})[row] = Removed("exact_duplicate", [texts[mark]])
                    continue
                own = kept_words.read(rank, row)
                texts[mark] = next((name for name, other in kept if similar(own, other, params)), id_)
                if texts[mark] == id_:
                    kept.append((id_, own))
                else:
                    removed.setdefault(rank, {})[row] = Removed("near_duplicate", [texts[mark]])
    return removed


class Found(NamedTuple):
    repeated: Repeated
    removed: dict[int, dict[int, Removed]]  # shard -> row
    candidates: int  # pairs that MinHash proposed
    similar: int  # those of them that are


def find(
    shards: list[Path], params: Dedup, seed: int, index: Index, prefer: Preference, folder: Path, workers: int
) -> Found:
    """All documents of `shards` that go.

    Args:
        folder: for working files. A run that was killed goes on with the tasks that are left.
        workers: processes; no matter to the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The longest first, so that no worker is left with it.
    tasks = sorted(enumerate(shards), key=lambda task: -task[1].stat().st_size)
    tasks = [task for task in tasks if count_documents(task[1])]
    if not tasks:
        return Found({}, {}, 0, 0)
    buckets = range(EXACT, params.buckets + 1)

    def each(function: partial[Any], items: Sequence[Any]) -> list[Any]:
        return executor.each(function, items, folder / "tasks" / function.func.__name__, workers)

    repeated = find_repeated(tasks, folder / "paragraphs", params, each)
    gone = each(partial(scan, folder=folder, params=params, seed=seed, index=index, repeated=repeated), tasks)
    each(partial(match, folder=folder, params=params, seed=seed), buckets)
    each(partial(propose, folder=folder, params=params), buckets)
    counts = each(partial(check, folder=folder, params=params), [rank for rank, _ in tasks])
    removed = resolve(cluster(folder), shards, folder, params, prefer)
    for (rank, _), found in zip(tasks, gone, strict=True):
        removed.setdefault(rank, {}).update({row: Removed(*why) for row, why in found})
    return Found(repeated, removed, sum(count for count, _ in counts), sum(count for _, count in counts))


def read(shards: list[Path], params: Dedup, found: Found) -> Iterator[tuple[Document, Removed | None, int]]:
    """Every document; why it goes, if it does; and how many characters of repeated paragraphs it had."""
    for rank, shard in enumerate(shards):
        removed = found.removed.get(rank, {})
        for row, whole in enumerate(read_documents(shard)):
            document = trim(whole, shard, found.repeated, params)
            reason = removed.get(row)  # a reject is kept as it came
            yield (document if reason is None else whole), reason, len(whole.text) - len(document.text)
