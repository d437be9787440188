"""Remove duplicates across all sources, exact ones and near ones (MinHash).

Of duplicates the first stays, in the order of this stage's deps in dvc.yaml: your own documents come first.
"""

from collections import Counter

from lib.pipeline.run import Run, stage
from lib.text import dedup
from lib.text.blocks import Rejects
from lib.text.documents import DocumentWriter, count_documents, shards


@stage
def main(run: Run) -> None:
    settings = dedup.config(run.param("dedup"), run.param("seed"))
    found = [shard for path in run.declared.data for shard in shards(run.dep(path) / "documents")]
    total = sum(map(count_documents, found))

    exact = dedup.find_exact_duplicates(found)
    run.log(f"{sum(map(len, exact)):,} exact duplicates; comparing {total - sum(map(len, exact)):,} documents")
    clusters = dedup.find_near_duplicates(found, exact, settings, run.scratch / "minhash", run.workers)

    target = run.out("data/dedup")
    kept: Counter[str] = Counter()
    with DocumentWriter(target / "documents") as documents, DocumentWriter(target / "rejects", True) as dropped:
        rejects = Rejects(dropped, "near_duplicate")
        for document in run.progress(dedup.keep_first(found, exact, clusters, rejects), total, "doc"):
            documents.write(document)
            kept[document.source] += 1

    if total != documents.documents + dropped.documents:
        raise RuntimeError(f"{total} documents came in, {documents.documents} + {dropped.documents} went out")
    run.log(f"kept {documents.documents:,} of {total:,} documents; {dict(rejects.reasons)}")
    sources = {path.removeprefix("data/clean/"): run.dep(path) / "documents" for path in run.declared.data}
    run.metrics(
        {
            "documents_in": total,
            "documents_out": documents.documents,
            "rejected": dropped.documents,
            "reasons": {reason: rejects.reasons[reason] for reason in ("exact_duplicate", "near_duplicate")},
            "sources": {
                name: {"documents_in": count_documents(folder), "documents_out": kept[name]}
                for name, folder in sources.items()
            },
        }
    )


if __name__ == "__main__":
    main()
