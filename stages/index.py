"""Cut documents into passages, embed them, and store them in Chroma for `make chat`.

Where a source has more documents than `index.sources` allows it, those with the smallest hash of their id are taken:
spread over the source, and the same ones whatever else changes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from lib.params.results import Index
from lib.pipeline.run import Run, stage
from lib.rag.chunk import Chunker
from lib.rag.embed import Embedder
from lib.rag.store import IndexWriter
from lib.text.documents import read_documents, read_table

BLOCK = 512  # passages embedded and stored at a time; sorted by length within


@stage
def main(run: Run) -> None:
    wanted: Index = run.param("index")
    folder = run.dep("data/dedup") / "documents"
    chosen = set()
    for source, known in ids_by_source(folder, wanted.sources).items():
        limit = wanted.sources[source]
        # Salted: the split of `mix` is a hash of the bare id, and its smallest ones are all test documents.
        chosen.update(sorted(known, key=lambda name: hashlib.sha256(f"index:{name}".encode()).digest())[:limit])
        if limit is not None and len(known) > limit:
            run.log(f"{source}: {limit:,} of {len(known):,} documents, see index.sources in params.yaml")
    if not chosen:
        run.log(f"no documents from {', '.join(wanted.sources) or 'any source'}: the index is empty")

    embedder = Embedder(run.dep("data/assets/minilm"), run.workers)
    chunker = Chunker(embedder.tokenizer, wanted.chunk_tokens, wanted.overlap_tokens)
    documents = run.progress(
        (found for found in read_documents(folder) if found.id in chosen), len(chosen), "documents"
    )
    passages = (passage for document in documents for passage in chunker.passages(document))

    per_source = Counter(dict.fromkeys(wanted.sources, 0))
    with IndexWriter(run.out("models/index"), embedder, wanted.top_k, wanted.min_similarity) as index:
        while block := list(islice(passages, BLOCK)):
            index.add(block, embedder.encode([passage.text for passage in block]))
            per_source.update(passage.source for passage in block)

    run.metrics(
        {
            "documents": len(chosen),
            "passages": index.passages,
            "dimension": embedder.dimension,
            "sources": dict(per_source),
        }
    )


def ids_by_source(folder: Path, sources: Iterable[str]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {source: [] for source in sources}
    for batch in read_table(folder, ["id", "source"]):
        for row in batch.to_pylist():
            if row["source"] in ids:
                ids[row["source"]].append(row["id"])
    return ids


if __name__ == "__main__":
    main()
