"""From deduplicated documents to a training mixture: held-out splits, sizes in tokens, shares of the sources.

Which split a document is in depends on its id alone, so no change of sources, shares, sizes or seed ever moves a
held-out document into training. Which documents of a source are trained on depends on the seed and that source alone:
each source has its documents in an order of its own, of which a larger share takes more.

A place in such an order is a hash, so nothing needs a list of documents: a histogram over the places says up to which
of them a share reaches, and memory does not grow with the corpus, which is read twice.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lib.params.text import Mix
from lib.pipeline.errors import SmeltError
from lib.text.documents import read_documents, read_table
from lib.text.licences import refuse
from lib.text.shuffle import Shuffle

TRIAL_VOCABULARY = 4096
TRIAL_BYTES = 250_000  # of each source
HELD_OUT = ("val", "test")
STEPS = 2**16  # of a source's order: its share is cut in so many steps, finer than a document up to 65,536 of them


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
# What there is


class Sample:
    """The texts at the beginning of a source's order, until they have `TRIAL_BYTES`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str, int, str]] = []  # the last of the order first
        self._size = 0

    def offer(self, place: float, id_: str, size: int, text: Callable[[], str]) -> None:
        if self._size >= TRIAL_BYTES and -place < self._heap[0][0]:
            return
        heapq.heappush(self._heap, (-place, id_, size, text()[:TRIAL_BYTES]))
        self._size += size
        while self._size - self._heap[0][2] >= TRIAL_BYTES:
            self._size -= heapq.heappop(self._heap)[2]

    @property
    def texts(self) -> list[str]:
        return [text for *_, text in sorted(self._heap, reverse=True)]


def _histogram() -> np.ndarray:
    return np.zeros(STEPS, np.int64)


@dataclass
class Source:
    """What the corpus has of one source, and what the mixture takes of it."""

    weight: float | Literal["all"]
    epochs: int
    licence: str
    licences: dict[str, tuple[int, str]] = field(default_factory=dict)  # of its documents: how many, uri of the first
    held_out: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"val": (0, 0), "test": (0, 0)}
    )  # number, bytes
    train_documents: np.ndarray = field(default_factory=_histogram)  # over the steps of its order
    train_bytes: np.ndarray = field(default_factory=_histogram)
    sample: Sample = field(default_factory=Sample)
    bytes_per_token: float = 1.0
    requested_share: float = 0.0
    requested_tokens: float = 0.0
    passes: int = 0  # taken whole
    steps: int = 0  # and so much of one more

    @property
    def terms(self) -> str:
        """The SPDX expression of what its documents are under, all together."""
        found = sorted(self.licences) or [self.licence]
        return " AND ".join(f"({each})" if " " in each and len(found) > 1 else each for each in found)

    @property
    def in_mixture(self) -> bool:
        return self.weight == "all" or self.weight > 0

    @property
    def documents(self) -> int:
        return int(self.train_documents.sum()) + sum(number for number, _ in self.held_out.values())

    @property
    def available(self) -> float:
        """Tokens of one pass, as estimated."""
        return int(self.train_bytes.sum()) / self.bytes_per_token

    @property
    def taken(self) -> int:
        """Documents of the mixture, repeats counted."""
        return self.passes * int(self.train_documents.sum()) + int(self.train_documents[: self.steps].sum())

    @property
    def bytes(self) -> int:
        """Of the text taken."""
        return self.passes * int(self.train_bytes.sum()) + int(self.train_bytes[: self.steps].sum())

    @property
    def tokens(self) -> float:
        """Taken, as estimated."""
        return self.bytes / self.bytes_per_token

    @property
    def epochs_reached(self) -> float:
        """How often its training documents are seen, on average."""
        return self.taken / (int(self.train_documents.sum()) or 1)

    def times(self, place: float) -> int:
        """How often the mixture takes the document at this place of the order."""
        return self.passes + (int(place * STEPS) < self.steps)


def survey(folder: Path, sources: Mapping[str, Source], params: Mix, seed: int) -> None:
    """Count the documents of `folder` into the splits of `sources`, training documents by their place in the order."""
    for batch in read_table(folder, ["id", "source", "licence", "uri", "text"]):
        sizes = pc.binary_length(batch["text"]).to_pylist()
        columns = (batch[name].to_pylist() for name in ("id", "source", "licence", "uri"))
        for row, (id_, name, licence, uri, size) in enumerate(zip(*columns, sizes, strict=True)):
            source = sources[name]
            count, first = source.licences.get(licence, (0, uri))
            source.licences[licence] = (count + 1, first)
            split = split_of(id_, params)
            if split == "train":
                place = _place(seed, id_)
                source.train_documents[int(place * STEPS)] += 1
                source.train_bytes[int(place * STEPS)] += size
                source.sample.offer(place, id_, size, batch["text"][row].as_py)
            else:
                number, total = source.held_out[split]
                source.held_out[split] = (number + 1, total + size)


def _place(seed: int, document_id: str) -> float:
    """Of a training document in the order of its source."""
    return _uniform(f"choose:{seed}:{document_id}")


def check_licences(sources: Mapping[str, Source], allow: Collection[str]) -> None:
    """Stop at any source or document of the mixture whose licence is not accepted.

    Raises:
        SmeltError: with a list of what and where.
    """
    found = [
        (name, licence, count, uri)
        for name, source in sources.items()
        if source.in_mixture
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


def estimate_bytes_per_token(sources: Mapping[str, Source]) -> None:
    """Train a small byte-level BPE on an equal sample of every source, and measure what a token of each is worth.

    The vocabulary is smaller than that of the tokenizer to come, so tokens are overestimated by some 10%, in all
    sources alike; the shares hold.
    """
    found = trial_bytes_per_token({name: source.sample.texts for name, source in sources.items()})
    for name, bytes_per_token in found.items():
        sources[name].bytes_per_token = bytes_per_token


def trial_bytes_per_token(samples: Mapping[str, list[str]]) -> dict[str, float]:
    """Bytes per token of each sample that has text, by a tokenizer trained on all of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=TRIAL_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for texts in samples.values() for text in texts), trainer)
    tokens = {name: sum(map(len, tokenizer.encode_batch_fast(texts))) for name, texts in samples.items()}
    sizes = {name: sum(len(text.encode()) for text in texts) for name, texts in samples.items()}
    return {name: sizes[name] / count for name, count in tokens.items() if count}


# ----------------------------------------------------------------------------------------------------------------------
# Shares


def share_out(sources: Mapping[str, Source], tokens: int) -> None:
    """Take all that there is of the sources of weight `all`, `epochs` times, and share out the rest by weight.

    Weights are normalised over the sources that have one. A source is taken in its own order, as many whole passes as
    fit into its share and then up to the step of the order that completes it.

    Raises:
        SmeltError: the sources of weight `all` are more than `tokens`, or others have too little for their share, even
            in all their epochs; with a line for each.
    """
    whole = {name: source for name, source in sources.items() if source.weight == "all"}
    weighted = {name: source for name, source in sources.items() if source.in_mixture and name not in whole}
    for source in whole.values():
        source.requested_tokens = source.epochs * source.available
    rest = tokens - sum(source.requested_tokens for source in whole.values())
    if rest < 0:
        raise SmeltError(
            f"sources of weight `all` have more than mix.tokens: {tokens:,}:\n"
            + "".join(
                f"  {name}: {source.requested_tokens:,.0f} tokens by estimate in {_epochs(source.epochs)}\n"
                for name, source in whole.items()
                if source.requested_tokens
            )
            + f"Raise mix.tokens to {_up(tokens - rest):,} or more, or give them fewer epochs, or a number for a weight"
        )
    total = sum(source.weight for source in weighted.values())
    for source in weighted.values():
        source.requested_tokens = source.weight / total * rest
    if short := [_shortage(name, weighted, rest, tokens) for name in weighted if _is_short(weighted[name])]:
        raise SmeltError(
            f"the mixture (mix.tokens: {tokens:,}) cannot have the shares that params.yaml asks for:\n"
            + "\n".join(short)
            + "\nFor each, one of these is enough while the others stay as they are"
        )
    mixed = sum(source.requested_tokens for source in sources.values())
    for source in sources.values():
        source.requested_share = source.requested_tokens / mixed if mixed else 0.0
        _take(source)


def _take(source: Source) -> None:
    """Set how much of its order the requested tokens are."""
    if not source.requested_tokens:
        return
    passes = min(int(source.requested_tokens / source.available), source.epochs)
    left = source.requested_tokens - passes * source.available if passes < source.epochs else 0.0
    reached = np.cumsum(source.train_bytes) / source.bytes_per_token
    source.passes = passes
    # Less than a millionth of a pass is a rounding error, not a share.
    source.steps = int(np.searchsorted(reached, left)) + 1 if left > 1e-6 * source.available else 0


def _is_short(source: Source) -> bool:
    return source.requested_tokens > source.epochs * source.available * (1 + 1e-9)


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' if number > 1 else ''}"


def _up(tokens: float) -> int:
    """To three digits, not less."""
    unit = 10 ** max(0, len(str(int(tokens))) - 3)
    return -int(-tokens // unit) * unit


def _shortage(name: str, weighted: Mapping[str, Source], rest: float, tokens: int) -> str:
    """What a source lacks, and each of the changes that would be enough."""
    source = weighted[name]
    has = source.epochs * source.available
    said = (
        f"  {name}: weight {source.weight:g} asks for {source.requested_tokens:,.0f} tokens "
        f"({source.requested_tokens / tokens:.1%}), and {_epochs(source.epochs)} of its training documents have "
        f"{has:,.0f}. "
    )
    if not source.available:
        return f"{said}It has no documents: set its weight to 0, or to `all`, which takes what there is"
    others = sum(other.weight for other in weighted.values()) - source.weight
    ways = [f"raise its epochs to {int(-(-source.requested_tokens // source.available))}"]
    if others:
        ways.append(f"lower its weight to {has * others / (rest - has) * 0.995:.3g}")
    ways.append(f"lower mix.tokens to {int(tokens - rest + has * rest / source.requested_tokens):,}")
    ways.append("give it the weight `all`")
    return said + (", or ".join(ways)).capitalize()


# ----------------------------------------------------------------------------------------------------------------------
# Dealing out


def deal(folder: Path, sources: Mapping[str, Source], params: Mix, seed: int, scratch: Path) -> dict[str, Shuffle]:
    """The documents of each split in an order drawn by hash; that of the held-out splits stays whatever the seed.

    A source that is taken P times spreads its passes over the order one after the other, each over 1/P of it: it is as
    dense everywhere, and a document comes again only when all the others have been seen as often.
    """
    mixed = [source for source in sources.values() if source.in_mixture]
    reached = {name: source.epochs_reached for name, source in sources.items()}
    sizes = {"train": sum(source.bytes for source in mixed)}
    sizes |= {split: sum(source.held_out[split][1] for source in mixed) for split in HELD_OUT}
    shuffles = {split: Shuffle(scratch / split, size) for split, size in sizes.items()}
    for document in read_documents(folder):
        source = sources[document.source]
        if not source.in_mixture:
            continue
        split = split_of(document.id, params)
        if split != "train":
            shuffles[split].add(_uniform(f"order::{document.id}"), document)
            continue
        passes = reached[document.source]
        for turn in range(source.times(_place(seed, document.id))):
            width = min(1.0, passes - turn)
            place = (turn + width * _uniform(f"order:{seed}:{turn}:{document.id}")) / passes
            shuffles[split].add(min(place, 1 - 2**-53), document)
    return shuffles
