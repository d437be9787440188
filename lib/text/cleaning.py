"""The chain of cleaning for one shard of documents: the steps of a rule set, one after the other.

A shard is the unit of work: `clean_shard` reads one parquet file and writes two of the same number, and what it counts
adds up over the shards of a source, so that any executor may run the shards in any order and place.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib.params.clean import CleanRules
from lib.params.text import PiiPolicy
from lib.text import gopher, heuristics, language, normalise, page_edges, source_code, web_filters
from lib.text.artefacts import Artefacts
from lib.text.blocks import Rejects, chain
from lib.text.documents import Document, ShardWriter, read_documents
from lib.text.pii.redact import Finder, PiiBlock
from lib.text.steps import Step, add, utf8_bytes

EDITS = ("pages", "normalise", "artefacts")
SAMPLES = 10  # of each reason, shown in the report
_SAMPLE_LENGTH = 300  # characters

# The steps by their key in params.yaml, in the order in which they run: edits before judgements, cheap before dear. The
# language is the dearest: 0.2 s a MB, half of the chain where it looked at every document.
STEPS: dict[str, Callable[..., Step]] = {
    "pages": page_edges.Pages,
    "normalise": normalise.Normalise,
    "artefacts": Artefacts,
    "block_list": heuristics.BlockList,
    "heuristics": heuristics.Heuristics,
    "code": source_code.SourceCode,
    "c4": web_filters.C4Quality,
    "gopher_quality": gopher.Quality,
    "gopher_repetition": gopher.Repetition,
    "language": language.Language,
    "fineweb": web_filters.FineWebQuality,
}


def steps(rules: CleanRules, rejects: Rejects | None = None) -> list[Step]:
    """The steps that `rules` switch on, in order; C4 judges early, and takes its lines out before FineWeb looks."""
    found: list[Step] = []
    for name, make in STEPS.items():
        if name == "fineweb" and rules.c4 is not None:
            found.append(web_filters.C4Lines(rejects))
        if (own := getattr(rules, name)) is not None:
            found.append(make(own, rejects, defer=True) if name == "c4" else make(own, rejects))
    return found


def _rank(document: str) -> str:
    """Draws documents for the samples: the same ones in any order and split of the shards."""
    return hashlib.blake2b(document.encode(), digest_size=8).hexdigest()


class _Sampled(Rejects):
    """Rejects that remember a few of each reason."""

    def __init__(self, writer: ShardWriter) -> None:
        super().__init__(writer)
        self.samples: dict[str, list[list[str]]] = {}

    def add(self, document: Document, reason: str) -> None:
        super().add(document, reason)
        # What is dropped for its personal data is not shown for it.
        text = "" if reason.startswith("pii_") else document.text[:_SAMPLE_LENGTH]
        sample = [_rank(document.id), document.id, document.uri, text]
        self.samples[reason] = merge_samples(self.samples.get(reason, []), [sample])


def merge_samples(left: list[list[str]], right: list[list[str]]) -> list[list[str]]:
    return heapq.nsmallest(SAMPLES, left + right)


def length_class(text: str) -> str:
    """The power of two up to which the characters of `text` reach, as the key of a histogram."""
    return str(1 << max(0, len(text) - 1).bit_length())


def clean_into(
    shard: str, folder: Path, rules: CleanRules, policy: PiiPolicy, finder: Callable[[], Finder] | None
) -> dict[str, Any]:
    """Clean the parquet file `shard` into `folder`/documents and `folder`/rejects, files of the same name."""
    name = Path(shard).name
    pii = PiiBlock(policy, finder()) if finder is not None else None
    return clean_shard(Path(shard), folder / "documents" / name, folder / "rejects" / name, rules, pii)


def clean_shard(
    shard: Path, target: Path, rejects: Path, rules: CleanRules, pii: PiiBlock | None = None
) -> dict[str, Any]:
    """Clean the documents of the parquet file `shard`; write what is kept to `target` and what is not to `rejects`.

    `pii` goes between the edits and the judgements, so that rejects and their samples hold no personal data either.

    Returns a tally of plain values; see `merge`.
    """
    lengths: Counter[str] = Counter()
    bytes_in = documents_in = 0
    with ShardWriter(target) as kept, ShardWriter(rejects, True) as dropped:
        sampled = _Sampled(dropped)
        made = steps(rules, sampled)
        if pii is not None:
            pii.rejects = sampled
            made.insert(sum(step.name in EDITS for step in made), pii)

        def read() -> Iterator[Document]:
            nonlocal bytes_in, documents_in
            for document in read_documents(shard):
                documents_in += 1
                bytes_in += utf8_bytes(document.text)
                yield document

        for document in chain(read(), *made):
            kept.write(document)
            lengths[length_class(document.text)] += 1
    found = [step for step in made if isinstance(step, language.Language)]
    return {
        "documents_in": documents_in,
        "documents_out": kept.documents,
        "rejected": dropped.documents,
        "bytes_in": bytes_in,
        "bytes_out": kept.bytes,
        "reasons": dict(sampled.reasons),
        "steps": {step.name: step.tally() for step in made},
        "lengths": dict(lengths),
        "languages": dict(found[0].languages) if found else {},
        "pii": (pii or PiiBlock("keep", None)).metrics(),
        "samples": sampled.samples,
    }


def merge(tallies: list[dict[str, Any]]) -> dict[str, Any]:
    """The tally of several shards: their numbers added, the first of their samples; the same in any order."""
    total: dict[str, Any] = {}
    samples: dict[str, list[list[str]]] = {}
    for tally in tallies:
        total = add(total, {key: value for key, value in tally.items() if key != "samples"})
        for reason, found in tally["samples"].items():
            samples[reason] = merge_samples(samples.get(reason, []), found)
    for name in ("reasons", "languages"):
        total[name] = dict(sorted(total[name].items()))
    total["lengths"] = dict(sorted(total["lengths"].items(), key=lambda item: int(item[0])))
    for step in total["steps"].values():
        for name in ("reasons", "removed"):
            step[name] = dict(sorted(step[name].items()))
    return total | {"samples": dict(sorted(samples.items()))}
