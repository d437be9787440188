"""Remove what evaluation sets and documents share, then duplicates across all sources, exact ones and near ones.

What goes is in data/dedup/rejects; data/dedup/removed.jsonl says because of what: of which document it is a duplicate,
or which items of which evaluation set it holds.
"""

import json
from collections import Counter

from lib.pipeline.run import Run, stage
from lib.text import decontaminate, dedup
from lib.text.documents import DocumentWriter, count_documents, shards


@stage
def main(run: Run) -> None:
    params = run.param("dedup")
    weights = {name: source.weight for name, source in run.param("sources").items()}
    prefer = dedup.preference(weights, run.param("licences").allow)
    names = sorted(path.removeprefix("data/clean/") for path in run.declared.data if path.startswith("data/clean/"))
    folders = {name: run.dep(f"data/clean/{name}") / "documents" for name in names}
    documents_in = {name: count_documents(folder) for name, folder in folders.items()}
    total = sum(documents_in.values())

    assets = {name: run.dep(f"data/assets/{name}") for name in params.decontaminate.sets}
    index = decontaminate.build(assets, params.decontaminate)
    found_shards = [shard for folder in folders.values() for shard in shards(folder)]
    found = dedup.find(found_shards, params, run.param("seed"), index, prefer, run.scratch / "minhash", run.workers)
    run.log(f"{found.similar:,} of {found.candidates:,} pairs that MinHash proposed are similar")

    target = run.out("data/dedup")
    kept: Counter[str] = Counter()
    reasons: Counter[str] = Counter(exact_duplicate=0, near_duplicate=0, contaminated=0, repeated_paragraphs=0)
    trimmed = 0  # documents that stay without paragraphs that many others of their source have
    leaks: Counter[str] = Counter()  # documents with an item of the set
    leaked: set[str] = set()  # items
    with (
        DocumentWriter(target / "documents") as documents,
        DocumentWriter(target / "rejects", True) as rejects,
        open(target / "removed.jsonl", "w", encoding="utf-8") as list_of_removed,
    ):
        for document, removed, cut in run.progress(dedup.read(found_shards, params, found), total, "doc"):
            if removed is None:
                trimmed += cut > 0
                documents.write(document)
                kept[document.source] += 1
                continue
            rejects.write(document, removed.reason)
            reasons[removed.reason] += 1
            entry = {"id": document.id, **removed._asdict()}
            list_of_removed.write(json.dumps(entry, ensure_ascii=False) + "\n")
            if removed.reason == "contaminated":
                leaks.update({decontaminate.set_of(item) for item in removed.because})
                leaked.update(removed.because)

    if total != documents.documents + rejects.documents:
        raise RuntimeError(f"{total} documents came in, {documents.documents} + {rejects.documents} went out")
    run.log(f"kept {documents.documents:,} of {total:,} documents; {dict(reasons)}")
    sets = {name: figures | {"documents": leaks[name]} for name, figures in index.report(leaked).items()}
    for name, figures in sets.items():
        run.log(f"{name}: {figures}")
    run.metrics(
        {
            "documents_in": total,
            "documents_out": documents.documents,
            "rejected": rejects.documents,
            "reasons": dict(reasons),
            "sources": {
                name: {"documents_in": count, "documents_out": kept[name]} for name, count in documents_in.items()
            },
            "trimmed": trimmed,
            "pairs": {"candidates": found.candidates, "similar": found.similar},
            "decontamination": sets,
        }
    )


if __name__ == "__main__":
    main()
