"""Hold out validation and test documents by a hash of their ids, then mix the training set by shares of tokens."""

from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run, stage
from lib.text import mix
from lib.text.documents import write_documents
from lib.text.licences import share_alike


@stage
def main(run: Run) -> None:
    params, seed = run.param("mix"), run.param("seed")
    corpus = run.dep("data/dedup") / "documents"
    sources = {name: mix.Source(source.weight, source.licence) for name, source in run.param("sources").items()}

    mix.survey(corpus, sources, params, seed)
    mix.check_licences(sources, run.param("licences").allow)
    if not any(source.train for source in sources.values() if source.weight):
        counts = ", ".join(f"{name} {source.documents}" for name, source in sources.items())
        raise SmeltError(
            f"no training documents are left after cleaning ({counts}). reports/clean/*/metrics.json says what was "
            f"rejected and why; loosen the rules under `clean` in params.yaml, or add documents to data/internal"
        )
    mix.estimate_bytes_per_token(corpus, sources)
    mix.share_out(sources, params.tokens)

    target = run.out("data/mix")
    mixed = [source for source in sources.values() if source.weight]
    train = {id_ for source in mixed for _, id_, _ in source.train[: source.taken]}
    write_documents(target / "train", mix.shuffled(corpus, train, seed))
    for split in ("val", "test"):
        held_out = {id_ for source in mixed for id_ in source.held_out[split]}
        write_documents(target / split, mix.shuffled(corpus, held_out, None))

    total = sum(source.tokens for source in mixed)
    run.log(f"{len(train):,} training documents, {total:,.0f} tokens by estimate, {params.tokens:,} requested")
    for name, source in sources.items():
        if source.tokens < source.requested_tokens:
            run.log(
                f"warning: {name} falls short: {source.requested_tokens:,.0f} tokens requested "
                f"({source.requested_share:.1%}), {source.tokens:,.0f} available ({source.tokens / total:.1%})"
            )
    run.metrics(
        {
            "tokens_estimated": round(total),
            "sources": {
                name: {
                    "requested_share": round(source.requested_share, 4),
                    "reached_share": round(source.tokens / total, 4),
                    "tokens_estimated": round(source.tokens),
                    "bytes": source.bytes,
                    "licence": source.licence,
                    "share_alike": share_alike(source.licence),
                    "documents": {
                        "available": source.documents,
                        "train": source.taken,
                        "val": len(source.held_out["val"]) if source.weight else 0,
                        "test": len(source.held_out["test"]) if source.weight else 0,
                    },
                }
                for name, source in sources.items()
            },
        }
    )


if __name__ == "__main__":
    main()
