"""Cut documents into passages, embed them, and write them into the index that `make chat` and `make serve` search.

Where a source has more documents than `index.sources` allows it, those with the smallest hash of their id are taken:
spread over the source, and the same ones whatever else changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lib.params.retrieval import Index
from lib.pipeline.run import Run, stage
from lib.rag.build import write_index
from lib.rag.embed import load_embedder
from lib.text.documents import read_documents, read_table


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

    run.dep(wanted.embedder.folder)
    embedder = load_embedder(wanted.embedder, run.root, run.workers)
    documents = run.progress(
        (found for found in read_documents(folder) if found.id in chosen), len(chosen), "documents"
    )
    vectors, lineage = run.scratch_home.parent / "vectors", run.lineage()
    code = [lineage["code"], lineage["pins"]]
    index = write_index(run.out("models/index"), wanted, embedder, documents, vectors, code)

    count, passages = index.count()
    run.metrics(
        {
            "documents": count,
            "passages": passages,
            "dimension": embedder.dimension,
            "sources": dict.fromkeys(wanted.sources, 0) | index.sources(),
        }
    )
    index.close()


def ids_by_source(folder: Path, sources: Iterable[str]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {source: [] for source in sources}
    for batch in read_table(folder, ["id", "source"]):
        for row in batch.to_pylist():
            if row["source"] in ids:
                ids[row["source"]].append(row["id"])
    return ids


if __name__ == "__main__":
    main()
