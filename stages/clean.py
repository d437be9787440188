"""Normalise the documents of one source and drop those that break its rules; what is dropped keeps its reason."""

from collections import Counter
from functools import partial

from lib.pipeline.run import Run, stage
from lib.text.clean import clean_shard
from lib.text.documents import shards
from lib.text.executor import each, link
from lib.text.pii.redact import Finder

NUMBERS = ("documents_in", "documents_out", "rejected", "bytes_in", "bytes_out")


@stage
def main(run: Run) -> None:
    found = [str(shard) for shard in shards(run.dep(f"data/raw/{run.item}") / "documents")]
    rules = run.param(f"clean.{run.param(f'sources.{run.item}.rules')}")
    policy = run.param(f"sources.{run.item}.pii")
    finder = partial(Finder, run.param("pii"), run.dep("data/assets/ner")) if policy != "keep" else None

    cleaned = run.scratch / "cleaned"
    clean = partial(clean_shard, target=cleaned, rules=rules, policy=policy, finder=finder)
    tallies = each(clean, found, run.scratch / "tasks", run.workers, run.progress)
    link(cleaned, run.out(f"data/clean/{run.item}"))

    total = {key: sum(tally[key] for tally in tallies) for key in NUMBERS}
    reasons = sum((Counter(tally["reasons"]) for tally in tallies), Counter())
    if total["documents_in"] != total["documents_out"] + total["rejected"]:
        raise RuntimeError("{documents_in} documents came in, {documents_out} + {rejected} went out".format(**total))
    megabytes = total["bytes_out"] / 1e6
    run.log(f"kept {total['documents_out']:,} of {total['documents_in']:,}, {megabytes:.2f} MB; {dict(reasons)}")
    run.metrics({**total, "reasons": dict(sorted(reasons.items()))})


if __name__ == "__main__":
    main()
