"""Clean the documents of one source by its rules: edit what must not stay, drop what breaks a rule, keep the reason."""

from functools import partial

from lib.pipeline.run import Run, stage
from lib.text.cleaning import clean_into, merge
from lib.text.documents import shards
from lib.text.executor import each, link
from lib.text.pii.redact import Finder


@stage
def main(run: Run) -> None:
    found = [str(shard) for shard in shards(run.dep(f"data/raw/{run.item}") / "documents")]
    rules = run.param(f"clean.{run.param(f'sources.{run.item}.rules')}")
    policy = run.param(f"sources.{run.item}.pii")
    settings = run.param("pii")
    finder = None
    if policy != "keep":
        finder = partial(Finder, settings, run.dep("data/assets/ner"), run.dep("data/assets/places"))

    cleaned = run.scratch / "cleaned"
    clean = partial(clean_into, folder=cleaned, rules=rules, policy=policy, finder=finder)
    total = merge(each(clean, found, run.scratch / "tasks", run.workers, run.progress))
    link(cleaned, run.out(f"data/clean/{run.item}"))

    samples = total.pop("samples")
    if total["documents_in"] != total["documents_out"] + total["rejected"]:
        raise RuntimeError(f"documents in are not documents out and rejects: {total}")
    kept = f"{total['documents_out']:,} of {total['documents_in']:,} documents"
    run.log(f"kept {kept}, {total['bytes_out'] / 1e6:.2f} MB; {total['reasons']}")
    run.metrics({**total, "pii": {"policy": policy, **total["pii"]}})
    run.report(
        "samples.json",
        {
            reason: [dict(zip(("id", "uri", "text"), sample[1:], strict=True)) for sample in drawn]
            for reason, drawn in samples.items()
        },
    )


if __name__ == "__main__":
    main()
