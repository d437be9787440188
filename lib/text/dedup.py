"""One of each: exact duplicates by a hash, near duplicates by MinHash (Broder 1997) with datatrove's four steps.

Of duplicates the first in the order of the shards stays, so that the order of the sources says whose copy is kept, and
the result depends neither on the number of workers nor on the seed of a hash table.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig

from lib.params.text import Dedup
from lib.text.blocks import Rejects, chain, rows
from lib.text.documents import Document, count_documents, read_documents

# ----------------------------------------------------------------------------------------------------------------------
# Exact


def fingerprint(text: str) -> bytes:
    """Equal for texts that differ in blanks, line breaks and capitals only."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()


def find_exact_duplicates(shards: Iterable[Path]) -> list[set[int]]:
    """For each shard, the rows whose text an earlier row has."""
    seen: set[bytes] = set()
    found = []
    for shard in shards:
        repeated = set()
        for row, document in enumerate(read_documents(shard)):
            mark = fingerprint(document.text)
            if mark in seen:
                repeated.add(row)
            seen.add(mark)
        found.append(repeated)
    return found


def _without(documents: Iterable[Document], dropped: set[int], rejects: Rejects | None = None) -> Iterator[Document]:
    for row, document in enumerate(documents):
        if row not in dropped:
            yield document
        elif rejects is not None:
            rejects.add(document, "exact_duplicate")


# ----------------------------------------------------------------------------------------------------------------------
# Near


def config(params: Dedup, seed: int) -> MinhashConfig:
    """datatrove's settings, but for two.

    Numbers count: by default all are the same, and a third of the factbook's chapters, which differ in little else,
    would go. SHA-1 is the hash: xxhash 4 takes no text, which is what datatrove 0.10.1 gives it.
    """
    return MinhashConfig(
        n_grams=params.ngram,
        num_buckets=params.buckets,
        hashes_per_bucket=params.hashes_per_bucket,
        seed=seed,
        norm_config=TextNormConfig(norm_numbers=False),
        hash_config=HashConfig(64, "sha1"),
    )


class _Words:
    """datatrove splits words with spaCy, at 0.3 MB/s; but its `simplify_text` has put blanks for all punctuation."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def _sign(task: tuple[int, Path, set[int]], folder: Path, settings: MinhashConfig) -> None:
    rank, shard, dropped = task
    step = MinhashDedupSignature(str(folder / "signatures"), settings)
    step.word_tokenizer = _Words()
    step.run(rows(_without(read_documents(shard), dropped)), rank)


def _match(bucket: int, folder: Path, settings: MinhashConfig) -> None:
    step = MinhashDedupBuckets(str(folder / "signatures"), str(folder / "matches"), config=settings)
    step.run(rank=bucket, world_size=settings.num_buckets)


def _keep_first(clusters: Path) -> None:
    """Make the first document of each cluster the one that stays: datatrove keeps the root of its union-find."""
    seen: set[int] = set()
    for file in sorted(clusters.glob("*.clusters")):
        removed = []
        for row, cluster in np.fromfile(file, "<u4").reshape(-1, 2).tolist():
            if cluster in seen:
                removed.append(row)
            seen.add(cluster)
        np.array(removed, "<u4").tofile(file.with_suffix(".remove"))


@contextmanager
def _processes(workers: int) -> Iterator[Callable[[Callable[[Any], None], Iterable[Any]], list[None]]]:
    """Yield what runs a function on each of its arguments, in so many processes; in this one if it is one."""
    if workers == 1:
        yield lambda function, arguments: [function(argument) for argument in arguments]
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda function, arguments: pool.map(function, arguments, chunksize=1)


def find_near_duplicates(
    shards: list[Path], exact: list[set[int]], settings: MinhashConfig, folder: Path, workers: int
) -> Path:
    """Cluster the documents of all shards by MinHash; the files of the result are for `keep_first`.

    Args:
        shards: in the order of preference.
        exact: for each shard, the rows that are dropped already.
        folder: for working files; emptied first.
        workers: processes; no matter to the result.
    """
    shutil.rmtree(folder, ignore_errors=True)
    tasks = [
        (rank, shard, gone)
        for rank, (shard, gone) in enumerate(zip(shards, exact, strict=True))
        if count_documents(shard) > len(gone)
    ]
    tasks.sort(key=lambda task: -task[1].stat().st_size)  # the longest first, so that no worker is left with it
    clusters = folder / "clusters"
    clusters.mkdir(parents=True)
    if not tasks:
        return clusters
    with _processes(min(workers, len(tasks))) as each:
        each(partial(_sign, folder=folder, settings=settings), tasks)
        each(partial(_match, folder=folder, settings=settings), range(settings.num_buckets))
    MinhashDedupCluster(str(folder / "matches"), str(clusters), settings, save_cluster_id=True).run()
    _keep_first(clusters)
    return clusters


# ----------------------------------------------------------------------------------------------------------------------
# Both


def keep_first(shards: list[Path], exact: list[set[int]], clusters: Path, rejects: Rejects) -> Iterator[Document]:
    """The documents of all shards, the first of each kind; the others go to `rejects` with their reason."""
    for rank, (shard, dropped) in enumerate(zip(shards, exact, strict=True)):
        documents = _without(read_documents(shard), dropped, rejects)
        yield from chain(documents, MinhashDedupFilter(str(clusters), rejects), rank=rank)
