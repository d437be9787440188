"""From deduplicated documents to a training mixture: held-out splits, sizes in tokens, shares of the sources.

Which split a document is in depends on its id alone, so no change of sources, shares, sizes or seed ever moves a
held-out document into training. Which documents of a source are trained on depends on the seed and that source alone:
each source has its documents in an order of its own, of which a larger share takes more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lib.params.text import Mix
from lib.pipeline.errors import SmeltError
from lib.text.documents import Document, measure, read_documents, read_table
from lib.text.licences import refuse

TRIAL_VOCABULARY = 4096
TRIAL_BYTES = 250_000  # of each source
_MEMORY = 2**30  # bytes of text held at once while documents are shuffled


# ----------------------------------------------------------------------------------------------------------------------
# Splits


def _uniform(key: str) -> float:
    """A number in [0, 1), the same for the same key on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def split_of(document_id: str, params: Mix) -> str:
    """`train`, `val` or `test`; neither held-out share moves documents of the other."""
    place = _uniform(document_id)
    if place < params.test:
        return "test"
    return "val" if place >= 1 - params.val else "train"


# ----------------------------------------------------------------------------------------------------------------------
# Shares


@dataclass
class Source:
    """What the corpus has of one source, and what the mixture takes of it."""

    weight: float
    licence: str
    licences: dict[str, tuple[int, str]] = field(default_factory=dict)  # of its documents: how many, uri of the first
    held_out: dict[str, list[str]] = field(default_factory=lambda: {"val": [], "test": []})  # ids
    train: list[tuple[float, str, int]] = field(default_factory=list)  # place in its order, id, bytes of text
    bytes_per_token: float = 1.0
    requested_share: float = 0.0
    requested_tokens: float = 0.0
    taken: int = 0  # of `train`, from its beginning

    @property
    def documents(self) -> int:
        return len(self.train) + sum(map(len, self.held_out.values()))

    @property
    def bytes(self) -> int:
        """Of the text taken."""
        return sum(size for _, _, size in self.train[: self.taken])

    @property
    def tokens(self) -> float:
        """Taken, as estimated."""
        return self.bytes / self.bytes_per_token


def survey(folder: Path, sources: Mapping[str, Source], params: Mix, seed: int) -> None:
    """Sort the documents of `folder` into the splits of `sources`; put each source's training set into its order."""
    for batch in read_table(folder, ["id", "source", "licence", "uri", "text"]):
        sizes = pc.binary_length(batch["text"]).to_pylist()
        columns = (batch[name].to_pylist() for name in ("id", "source", "licence", "uri"))
        for id_, name, licence, uri, size in zip(*columns, sizes, strict=True):
            count, first = sources[name].licences.get(licence, (0, uri))
            sources[name].licences[licence] = (count + 1, first)
            split = split_of(id_, params)
            if split == "train":
                sources[name].train.append((_uniform(f"choose:{seed}:{id_}"), id_, size))
            else:
                sources[name].held_out[split].append(id_)
    for source in sources.values():
        source.train.sort()


def check_licences(sources: Mapping[str, Source], allow: Collection[str]) -> None:
    """Stop at any source or document of the mixture whose licence is not accepted.

    Raises:
        SmeltError: with a list of what and where.
    """
    found = [
        (name, licence, count, uri)
        for name, source in sources.items()
        if source.weight
        for licence, (count, uri) in {source.licence: (0, "sources"), **source.licences}.items()
    ]
    refused = [
        f"  {name}: {licence}, {f'{count:,} documents, first {uri}' if count else 'of the source'}: {reason}"
        for name, licence, count, uri, reason in refuse(found, allow)
    ]
    if refused:
        raise SmeltError(
            "licences that are not accepted:\n" + "\n".join(refused) + "\n"
            "Add them to licences.allow in params.yaml, or give the source the weight 0, or take the documents out"
        )


def estimate_bytes_per_token(folder: Path, sources: Mapping[str, Source]) -> None:
    """Train a small byte-level BPE on an equal sample of every source, and measure what a token of each is worth.

    The vocabulary is smaller than that of the tokenizer to come, so tokens are overestimated by some 10%, in all
    sources alike; the shares hold.
    """
    wanted: dict[str, str] = {}
    for name, source in sources.items():
        size = 0
        for _, id_, length in source.train:
            if size >= TRIAL_BYTES:
                break
            wanted[id_], size = name, size + length
    samples: dict[str, list[str]] = {name: [] for name in sources}
    for document in read_documents(folder):
        if document.id in wanted:
            samples[document.source].append(document.text[:TRIAL_BYTES])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=TRIAL_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for texts in samples.values() for text in texts), trainer)
    for name, texts in samples.items():
        tokens = sum(len(encoding) for encoding in tokenizer.encode_batch_fast(texts))
        if tokens:
            sources[name].bytes_per_token = sum(len(text.encode()) for text in texts) / tokens


def share_out(sources: Mapping[str, Source], tokens: int) -> None:
    """Take of each source its share of `tokens`, or all that there is; nothing is repeated.

    Weights are normalised over the sources that have training documents. A source is taken in its own order up to the
    document that completes the share.
    """
    total = sum(source.weight for source in sources.values() if source.train)
    for source in sources.values():
        if not source.train or not source.weight:
            continue
        source.requested_share = source.weight / total
        source.requested_tokens = source.requested_share * tokens
        reached = 0.0
        for _, _, size in source.train:
            if reached >= source.requested_tokens:
                break
            source.taken, reached = source.taken + 1, reached + size / source.bytes_per_token


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def shuffled(folder: Path, ids: set[str], seed: int | None) -> Iterator[Document]:
    """The documents with these ids in an order drawn by hash; a held-out split has no seed, so that its order stays.

    Memory is bounded: a corpus larger than `_MEMORY` is read several times, a part of the order at a time.
    """
    _, size = measure(folder)
    passes = math.ceil(size / _MEMORY) or 1
    for turn in range(passes):
        part = []
        for document in read_documents(folder):
            if document.id in ids:
                place = _uniform(f"order:{'' if seed is None else seed}:{document.id}")
                if turn <= place * passes < turn + 1:
                    part.append((place, document))
        yield from (document for _, document in sorted(part))
