"""Near duplicates by MinHash-LSH (Broder 1997) with datatrove's steps, and a check of every pair that they propose.

    signatures   one task a shard    datatrove, with our hashes: MinHash of word n-grams; the words beside them
    matches      one task a bucket   datatrove: documents that have a bucket in common
    candidates   one task a bucket   pairs of them, sorted by shard
    similar      one task a shard    pairs with most words in common, in order, and all key words
    clusters     one task            datatrove: union-find

High recall needs many small buckets, which propose many pairs that are no copies (95% of them in the default corpus).
The Jaccard similarity of n-grams cannot tell them apart: a copy with 10% of its words changed has 0.68, as have two
pages of a manual that say the same of two commands. Words do: changes at random spare one of several occurrences of a
word, while another subject changes its name throughout.

Everything goes over disk; a process holds one shard's rows at a time. What grows with the corpus is the union-find,
which holds the duplicates alone, and the pages of the tables of documents (20 bytes each), which are only mapped.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document as Row
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from loguru import logger
from rapidfuzz.distance import LCSseq

from lib.params.text import Dedup
from lib.text.word_hashes import hashes_of, ngrams

logger.disable("datatrove")  # stages say themselves what they do

EXACT = 0  # the bucket of the whole text; MinHash has the others
WINDOW = 32  # of a bucket's documents, ordered by length, each is compared with so many that follow
_BLOCK = 2**18  # pairs read at a time
_CHUNK = 2048  # n-grams hashed at a time: the working set stays in the processor's cache
ENTRY = np.dtype([("fingerprint", "<u8"), ("start", "<u8"), ("words", "<u4")])  # of a document
PAIR = np.dtype([("shard", "<u4"), ("row", "<u4"), ("other_shard", "<u4"), ("other_row", "<u4")])  # as datatrove has it


def fingerprint(text: str) -> int:
    """Equal for texts that differ in blanks, line breaks and capitals only. 61 bits, as datatrove's readers want."""
    digest = hashlib.sha256(" ".join(text.lower().split()).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 3


def config(params: Dedup, seed: int) -> MinhashConfig:
    """datatrove's settings: the hashes of a bucket are folded into one number, which saves two thirds of the disk."""
    return MinhashConfig(
        n_grams=params.ngram,
        num_buckets=params.buckets + 1,
        hashes_per_bucket=1,
        seed=seed,
        hash_config=HashConfig(64, "sha1"),
    )


# ----------------------------------------------------------------------------------------------------------------------
# Signatures


class Signatures(MinhashDedupSignature):
    """datatrove's step with an exact bucket, with fast hashes, and with the words kept for the check."""

    def __init__(self, folder: Path, params: Dedup, seed: int) -> None:
        super().__init__(str(folder / "signatures"), config(params, seed))
        self._folder, self._hashes_per_bucket = folder / "words", params.hashes_per_bucket
        generator = np.random.RandomState(seed)
        shape = (params.buckets * params.hashes_per_bucket, 1)
        self._factors = generator.randint(0, 2**63, shape, np.uint64) * 2 + 1
        self._offsets = generator.randint(0, 2**63, shape, np.uint64)

    def sign(self, texts: Iterable[str | None], rank: int) -> None:
        """Write the signatures and words of the shard `rank`; a text that is None takes part in nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            open(self._folder / f"{rank:05d}.words", "wb") as self._words,
            open(self._folder / f"{rank:05d}.entries", "wb") as self._entries,
        ):
            self.run((Row(text="" if text is None else text, id="") for text in texts), rank)

    def get_shingles(self, text: str) -> np.ndarray:
        """The fingerprint of `text` and then its n-grams; empty, which datatrove leaves out, where there is none."""
        numbers = hashes_of(text)
        mark = fingerprint(text)
        self._entries.write(np.array((mark, self._words.tell() // 4, len(numbers)), ENTRY).tobytes())
        self._words.write((numbers >> np.uint64(32)).astype("<u4").tobytes())
        found = ngrams(numbers, self.config.n_grams)
        return np.concatenate([np.array([mark], np.uint64), found]) if text else found

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """One number a bucket. Texts shorter than an n-gram have that of their fingerprint everywhere."""
        mark, found = int(shingles[0]), shingles[1:]
        if not len(found):
            return [[mark]] * self.config.num_buckets
        # Multiply-add modulo 2^64 in place of datatrove's modulo 2^61 - 1: n-grams are hashes already.
        chunks = (found[start : start + _CHUNK] for start in range(0, len(found), _CHUNK))
        least = functools.reduce(np.minimum, ((chunk * self._factors + self._offsets).min(axis=1) for chunk in chunks))
        folded = ngrams_of_rows(least.reshape(-1, self._hashes_per_bucket)) >> np.uint64(3)
        return [[mark], *([number] for number in folded.tolist())]


def ngrams_of_rows(numbers: np.ndarray) -> np.ndarray:
    """Each row of `numbers` as one number."""
    return ngrams(numbers.T, len(numbers.T))[0]


def match(bucket: int, folder: Path, params: Dedup, seed: int) -> None:
    """datatrove: for the documents that have this bucket in common, each one and the next."""
    settings = config(params, seed)
    signatures, target = str(folder / "signatures"), str(folder / "matches")
    step = MinhashDedupBuckets(signatures, target, config=settings, lines_to_buffer=1000)
    step.run(rank=bucket, world_size=settings.num_buckets)


# ----------------------------------------------------------------------------------------------------------------------
# The check


class Words:
    """The words that `Signatures` kept, by shard and row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "words"
        self._opened: dict[int, tuple[np.ndarray, object]] = {}

    def _open(self, shard: int) -> tuple[np.ndarray, object]:
        if shard not in self._opened:
            table = np.memmap(self._folder / f"{shard:05d}.entries", ENTRY, "r")
            self._opened[shard] = table, (self._folder / f"{shard:05d}.words").open("rb")
        return self._opened[shard]

    def entries(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = np.empty(len(rows), ENTRY)
        for shard in np.unique(shards).tolist():
            here = shards == shard
            found[here] = self._open(shard)[0][rows[here]]
        return found

    def mark(self, shard: int, row: int) -> int:
        """The fingerprint of a document."""
        return int(self._open(shard)[0][row]["fingerprint"])

    def read(self, shard: int, row: int) -> np.ndarray:
        """The words of a document, in order: uint32, shape (words,)."""
        table, file = self._open(shard)
        _, start, count = table[row].item()
        file.seek(4 * start)
        return np.frombuffer(file.read(4 * count), "<u4")

    def close(self) -> None:
        for _, file in self._opened.values():
            file.close()

    def __enter__(self) -> Words:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def similar(first: np.ndarray, second: np.ndarray, params: Dedup) -> bool:
    """Whether one is a copy of the other.

    Their longest common subsequence has at least `similarity` of the words of the longer; and neither has a word
    `keyword_count` times, and in `keyword_share` of its words, that the other lacks.

    Args:
        first, second: the words of two documents, from `Words.read`.
    """
    longer = max(len(first), len(second))
    if not longer or min(len(first), len(second)) < params.similarity * longer:
        return False
    if not LCSseq.normalized_similarity(first.tolist(), second.tolist(), score_cutoff=params.similarity):
        return False
    often = max(params.keyword_count, params.keyword_share * longer)
    return not (_often(first, often) - set(second.tolist()) or _often(second, often) - set(first.tolist()))


def _often(found: np.ndarray, least: float) -> set[int]:
    return {word for word, count in Counter(found.tolist()).items() if count >= least}


def _blocks(path: Path) -> Iterator[np.ndarray]:
    """The chains of a file of matches, whole ones, in blocks of bounded size."""
    rest = np.empty(0, PAIR)
    with open(path, "rb") as file:
        while len(read := np.fromfile(file, PAIR, _BLOCK)):
            block = np.concatenate([rest, read])
            begins = np.flatnonzero(_begins(block))
            cut = begins[-1] if begins[-1] else len(block)  # a chain longer than a block is cut
            rest, block = block[cut:], block[:cut]
            yield block
    yield rest


def _begins(block: np.ndarray) -> np.ndarray:
    """Where a chain begins: a pair whose first document is not the second one of the pair before it."""
    begins = np.ones(len(block), bool)
    begins[1:] = (block["shard"][1:] != block["other_shard"][:-1]) | (block["row"][1:] != block["other_row"][:-1])
    return begins


def _pairs(block: np.ndarray, kept: Words, params: Dedup) -> np.ndarray:
    """The pairs worth a check among the documents of each chain; the same ones for any order of the shards."""
    begins = _begins(block)
    chain = np.cumsum(begins)
    shard = np.concatenate([block["shard"][begins], block["other_shard"]])
    row = np.concatenate([block["row"][begins], block["other_row"]])
    chain = np.concatenate([chain[begins], chain])
    entries = kept.entries(shard, row)
    order = np.lexsort([entries["fingerprint"], entries["words"], chain])
    shard, row, chain, entries = shard[order], row[order], chain[order], entries[order]
    # One of each text: its copies have the exact bucket to meet in.
    first = np.ones(len(order), bool)
    first[1:] = (entries["fingerprint"][1:] != entries["fingerprint"][:-1]) | (chain[1:] != chain[:-1])
    shard, row, chain, size = shard[first], row[first], chain[first], entries["words"][first]
    found = []
    for step in range(1, WINDOW + 1):
        alike = (chain[step:] == chain[:-step]) & (size[:-step] >= params.similarity * size[step:])
        near = np.flatnonzero(alike)
        if not len(near):
            break
        pairs = np.empty(len(near), PAIR)
        pairs["shard"], pairs["row"] = shard[near], row[near]
        pairs["other_shard"], pairs["other_row"] = shard[near + step], row[near + step]
        found.append(pairs)
    return _ordered(np.concatenate(found)) if found else np.empty(0, PAIR)


def _ordered(pairs: np.ndarray) -> np.ndarray:
    """Each pair with its smaller document first."""
    swap = (pairs["shard"] > pairs["other_shard"]) | (
        (pairs["shard"] == pairs["other_shard"]) & (pairs["row"] > pairs["other_row"])
    )
    turned = pairs[swap]
    pairs["shard"][swap], pairs["row"][swap] = turned["other_shard"], turned["other_row"]
    pairs["other_shard"][swap], pairs["other_row"][swap] = turned["shard"], turned["row"]
    return pairs


def propose(bucket: int, folder: Path, params: Dedup) -> None:
    """Write the candidates of a bucket, those of each shard into a file of its own."""
    for left in (folder / "candidates").glob(f"*/{bucket:05d}.dups"):  # of a run that was killed
        left.unlink()
    with Words(folder) as kept:
        for block in _blocks(folder / "matches" / f"{bucket:05d}_00.dups"):
            pairs = _ordered(block.copy()) if bucket == EXACT else _pairs(block, kept, params)
            for shard in np.unique(pairs["shard"]).tolist():
                target = folder / "candidates" / f"{shard:05d}"
                target.mkdir(parents=True, exist_ok=True)
                with open(target / f"{bucket:05d}.dups", "ab") as file:
                    pairs[pairs["shard"] == shard].tofile(file)


def check(shard: int, folder: Path, params: Dedup) -> list[int]:
    """Keep the candidates of a shard that are similar: how many there were, and how many there are."""
    files = sorted((folder / "candidates" / f"{shard:05d}").glob("*.dups"))
    pairs = np.unique(np.concatenate([np.empty(0, PAIR), *(np.fromfile(file, PAIR) for file in files)]))
    alike = np.zeros(len(pairs), bool)
    with Words(folder) as kept:
        last = None
        for number, (first_shard, first_row, other_shard, other_row) in enumerate(pairs.tolist()):
            if last != first_row:
                last, mark, own = first_row, kept.mark(first_shard, first_row), kept.read(first_shard, first_row)
            alike[number] = mark == kept.mark(other_shard, other_row) or similar(
                own, kept.read(other_shard, other_row), params
            )
    (folder / "similar").mkdir(exist_ok=True)
    pairs[alike].tofile(folder / "similar" / f"{shard:05d}.dups")
    return [len(pairs), int(alike.sum())]


def cluster(folder: Path) -> np.ndarray:
    """datatrove: the documents that have a similar one, with the number of their cluster.

    Returns:
        uint32, shape (documents, 3): shard, row, cluster.
    """
    target = folder / "clusters"
    target.mkdir(exist_ok=True)
    any_number_of_files = MinhashConfig(num_buckets=1)
    MinhashDedupCluster(str(folder / "similar"), str(target), any_number_of_files, save_cluster_id=True).run()
    found = [np.empty((0, 3), np.uint32)]
    for file in sorted(target.glob("*.clusters")):
        members = np.fromfile(file, "<u4").reshape(-1, 2)
        found.append(np.insert(members, 0, int(file.stem), axis=1))
    return np.concatenate(found)
