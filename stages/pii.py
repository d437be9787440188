"""Measure the search for personal data on labelled documents: invented people, in templates it was not developed on."""

from lib.evals.pii.labelled import Span, labelled
from lib.evals.pii.score import Score
from lib.pipeline.run import Run, stage
from lib.text.pii.redact import Finder


@stage
def main(run: Run) -> None:
    settings, seed = run.param("pii"), run.param("seed")
    finder = Finder(settings, run.dep("data/assets/ner"), run.dep("data/assets/places"))
    halves = {}
    for half in ("develop", "held_out"):
        documents = labelled(half, settings.labelled_rounds, seed)
        score = Score(settings.types)
        findings = finder.find([document.text for document in documents])
        for document, found in zip(run.progress(documents, len(documents), "doc"), findings, strict=True):
            score.add(document.text, document.spans, [Span(one.start, one.end, one.type) for one in found])
        halves[half] = {"documents": len(documents), "types": score.metrics()}
        for name in ("patterned", "names"):
            row = halves[half]["types"][name]
            if row["labelled"]:
                rates = " ".join(f"{rate} {row[rate]['value']:.3f}" for rate in ("recall", "precision") if row[rate])
                run.log(f"{half}: {name}: {row['labelled']:,} values, {rates}")
    run.metrics(halves)


if __name__ == "__main__":
    main()
