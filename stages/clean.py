"""Clean the documents of one source by its rules: edit what must not stay, drop what breaks a rule, keep the reason."""

from lib.pipeline.run import Run, stage
from lib.text.cleaning import clean_shard, merge
from lib.text.documents import shards


@stage
def main(run: Run) -> None:
    found = shards(run.dep(f"data/raw/{run.item}") / "documents")
    target = run.out(f"data/clean/{run.item}")
    rules = run.param(f"clean.{run.param(f'sources.{run.item}.rules')}")

    tallies = [
        clean_shard(shard, target / "documents" / shard.name, target / "rejects" / shard.name, rules)
        for shard in run.progress(found, None, "shard")
    ]

    total = merge(tallies)
    samples = total.pop("samples")
    if total["documents_in"] != total["documents_out"] + total["rejected"]:
        raise RuntimeError(f"documents in are not documents out and rejects: {total}")
    megabytes = total["bytes_out"] / 1e6
    kept = f"{total['documents_out']:,} of {total['documents_in']:,} documents"
    run.log(f"kept {kept}, {megabytes:.2f} MB; {total['reasons']}")
    run.metrics(total)
    run.report(
        "samples.json",
        {
            reason: [dict(zip(("id", "uri", "text"), sample[1:], strict=True)) for sample in drawn]
            for reason, drawn in samples.items()
        },
    )


if __name__ == "__main__":
    main()
