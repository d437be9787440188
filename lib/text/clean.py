"""Cleaning one shard: normalise its documents, drop those that break the rules of their source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lib.params.text import CleanRules, PiiPolicy
from lib.text.blocks import Rejects, chain
from lib.text.documents import Document, ShardWriter, read_documents
from lib.text.normalise import Normalise
from lib.text.pii.redact import Finder, PiiBlock
from lib.text.quality import Quality


def clean_shard(
    shard: str, target: Path, rules: CleanRules, policy: PiiPolicy, finder: Callable[[], Finder] | None
) -> dict[str, Any]:
    """Clean `shard` (its path) into `target`/documents and `target`/rejects, one shard each of the same number.

    What comes back adds up over shards: documents and bytes in and out, documents rejected in all and by reason.
    """
    tally: dict[str, Any] = {"documents_in": 0, "documents_out": 0, "rejected": 0, "bytes_in": 0, "bytes_out": 0}

    def counted(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            tally["documents_in"] += 1
            tally["bytes_in"] += len(document.text.encode())
            yield document

    path = Path(shard)
    with (
        ShardWriter(target / "documents" / path.name) as documents,
        ShardWriter(target / "rejects" / path.name, True) as dropped,
    ):
        rejects = Rejects(dropped)
        pii = PiiBlock(policy, finder() if finder else None, rejects)
        for document in chain(counted(read_documents(path)), Normalise(), Quality(rules, rejects), pii):
            documents.write(document)
    tally |= {"documents_out": documents.documents, "rejected": dropped.documents, "bytes_out": documents.bytes}
    return tally | {"reasons": dict(sorted(rejects.reasons.items())), "pii": pii.metrics()}
