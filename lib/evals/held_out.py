"""The held-out text that compression baselines and models are measured on: the same bytes for all of them."""

from __future__ import annotations

import hashlib
import heapq
from pathlib import Path

from lib.text.documents import Document, read_documents


def _cut(text: str, size: int) -> str:
    """The longest beginning of `text` that is at most `size` bytes of UTF-8 and ends between two characters."""
    return text.encode()[:size].decode(errors="ignore")


def sample_held_out(folder: Path, bytes_per_source: int) -> list[Document]:
    """Sample the documents in `folder`, at most `bytes_per_source` bytes of UTF-8 from each source.

    The documents of a source are taken in the order of a hash of their ids until the budget is used up; the last one is
    cut to what is left. So a document that comes or goes elsewhere in the corpus hardly moves the sample. Memory is
    bounded by the sample.

    Returns:
        Documents with text, by source and then by hash.
    """
    # Per source a heap with the largest hash on top, which is dropped once the others fill the budget alone.
    heaps: dict[str, list[tuple[int, Document]]] = {}
    sizes: dict[str, int] = {}
    for document in read_documents(folder):
        document = document._replace(text=_cut(document.text, bytes_per_source))
        heap = heaps.setdefault(document.source, [])
        order = int.from_bytes(hashlib.sha256(document.id.encode()).digest())
        heapq.heappush(heap, (-order, document))
        size = sizes.get(document.source, 0) + len(document.text.encode())
        while size - len(heap[0][1].text.encode()) >= bytes_per_source:
            size -= len(heapq.heappop(heap)[1].text.encode())
        sizes[document.source] = size
    sample = []
    for source in sorted(heaps):
        left = bytes_per_source
        for _, document in sorted(heaps[source], reverse=True):
            text = _cut(document.text, left)
            left -= len(text.encode())
            if text:
                sample.append(document._replace(text=text))
    return sample
