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
    sources = {
        name: mix.Source(source.weight, source.epochs, source.licence) for name, source in run.param("sources").items()
    }

    mix.survey(corpus, sources, params, seed)
    mix.check_licences(sources, run.param("licences").allow)
    if not any(source.available for source in sources.values() if source.in_mixture):
        counts = ", ".join(f"{name} {source.documents}" for name, source in sources.items())
        raise SmeltError(
            f"no training documents are left after cleaning ({counts}). reports/clean/*/metrics.json says what was "
            f"rejected and why; loosen the rules under `clean` in params.yaml, or add documents to data/internal"
        )
    mix.estimate_bytes_per_token(sources)
    mix.share_out(sources, params.tokens)

    target = run.out("data/mix")
    shuffled = mix.deal(corpus, sources, params, seed, run.scratch)
    written = {split: write_documents(target / split, shuffled[split]).documents for split in ("train", "val", "test")}

    taken = sum(source.taken for source in sources.values())
    if written["train"] != taken:
        raise RuntimeError(f"{taken} training documents were shared out, {written['train']} written")
    total = sum(source.tokens for source in sources.values())
    run.log(f"{taken:,} training documents, {total:,.0f} tokens by estimate, {params.tokens:,} requested")
    for name, source in sources.items():
        if source.requested_tokens:
            run.log(
                f"{name}: {source.requested_share:.1%} requested, {source.tokens / total:.1%} reached, "
                f"{source.epochs_reached:.2f} of {source.epochs} epochs"
            )
    run.metrics(
        {
            "tokens_requested": params.tokens,
            "tokens_estimated": round(total),
            "sources": {
                name: {
                    "requested_share": round(source.requested_share, 4),
                    "reached_share": round(source.tokens / total, 4),
                    "tokens_requested": round(source.requested_tokens),
                    "tokens_estimated": round(source.tokens),
                    "tokens_available": round(source.available),
                    "epochs": round(source.epochs_reached, 4),
                    "bytes": source.bytes,
                    "licence": source.terms,
                    "share_alike": share_alike(source.terms),
                    "documents": {
                        "available": source.documents,
                        "train": source.taken,
                        "val": source.held_out["val"][0] if source.in_mixture else 0,
                        "test": source.held_out["test"][0] if source.in_mixture else 0,
                    },
                }
                for name, source in sources.items()
            },
        }
    )


if __name__ == "__main__":
    main()
