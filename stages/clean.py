"""Normalise the documents of one source and drop those that break its rules; what is dropped keeps its reason."""

from lib.pipeline.run import Run, stage
from lib.text.blocks import Rejects, chain
from lib.text.documents import DocumentWriter, measure, read_documents
from lib.text.normalise import Normalise
from lib.text.pii.redact import Finder, PiiBlock
from lib.text.quality import Quality


@stage
def main(run: Run) -> None:
    source = run.dep(f"data/raw/{run.item}") / "documents"
    target = run.out(f"data/clean/{run.item}")
    rules = run.param(f"clean.{run.param(f'sources.{run.item}.rules')}")
    policy = run.param(f"sources.{run.item}.pii")
    finder = Finder(run.param("pii"), run.dep("data/assets/ner")) if policy != "keep" else None

    found, bytes_in = measure(source)
    with DocumentWriter(target / "documents") as documents, DocumentWriter(target / "rejects", True) as dropped:
        rejects = Rejects(dropped)
        stream = run.progress(read_documents(source), found, "doc")
        pii = PiiBlock(policy, finder, rejects)
        for document in chain(stream, Normalise(), Quality(rules, rejects), pii):
            documents.write(document)

    if found != documents.documents + dropped.documents:
        raise RuntimeError(f"{found} documents came in, {documents.documents} + {dropped.documents} went out")
    megabytes = documents.bytes / 1e6
    run.log(f"kept {documents.documents:,} of {found:,} documents, {megabytes:.2f} MB; {dict(rejects.reasons)}")
    run.metrics(
        {
            "documents_in": found,
            "documents_out": documents.documents,
            "rejected": dropped.documents,
            "bytes_in": bytes_in,
            "bytes_out": documents.bytes,
            "reasons": dict(sorted(rejects.reasons.items())),
            "pii": pii.metrics(),
        }
    )


if __name__ == "__main__":
    main()
