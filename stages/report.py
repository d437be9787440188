"""Gather what every stage measured into reports/index.html, one page that opens offline, and a data card."""

from pathlib import Path

from lib.pipeline.run import Run, stage
from lib.report import (
    answers,
    benchmarks,
    chat_data,
    cleaning,
    cost,
    data_card,
    documents,
    evaluation,
    exports,
    forgetting,
    judging,
    lineage,
    overview,
    page,
    preferences,
    privacy,
    synthetic,
    training,
)
from lib.report.results import Results


@stage
def main(run: Run) -> None:
    # What the stages left
    results = Results(run.dep)
    runs = [results.json(path) for path in run.declared.data if path.endswith("/run.json")]
    sources, assets, export = run.param("sources"), run.param("assets"), run.param("export")
    params = {
        "seed": run.param("seed"),
        "sources": sources,
        "assets": assets,
        "licences": run.param("licences"),
        "clean": run.param("clean"),
        "pii": run.param("pii"),
        "dedup": run.param("dedup"),
        "mix": run.param("mix"),
        "tokenizer": run.param("tokenizer"),
        "encode": run.param("encode"),
        "model": run.param("model"),
        "guards": run.param("guards"),
        "pretrain": run.param("pretrain"),
        "decay": run.param("decay"),
        "synthesize": run.param("synthesize"),
        "chat": run.param("chat"),
        "finetune": run.param("finetune"),
        "preferences": run.param("preferences"),
        "prefer": run.param("prefer"),
        "evaluate": run.param("evaluate"),
        "contamination": run.param("contamination"),
        "judge": run.param("judge"),
        "export": export,
        "index": run.param("index"),
    }
    reference = Path(assets["smollm2"].members[0]).stem

    # What the page says
    summary = overview.summary(results, export.name, reference, runs, params["finetune"])
    sections = [
        evaluation.quality(results, reference),
        benchmarks.benchmarks(results),
        forgetting.forgetting(results, params["evaluate"].forgetting),
        judging.judged(results, run.param("judge").min_accuracy),
        answers.answers(results),
        training.curves(results),
        preferences.preferences(results),
        documents.mixture(results, sources),
        chat_data.taught(results),
        documents.rejected(results, sources),
        cleaning.cleaned(results, sources),
        privacy.privacy(results, sources),
        synthetic.synthetic(results),
        judging.contamination(results),
        cost.cost(runs),
        exports.exports(results),
        lineage.lineage(results, sources, params, runs, lineage.origin(run.root)),
    ]

    html = page.render(summary, sections, written=lineage.written())
    run.out("reports/index.html").write_text(html, encoding="utf-8")
    run.out("reports/data_card.md").write_text(data_card.card(results, export.name, sources), encoding="utf-8")
    run.log(f"reports/index.html: {len(html.encode()) / 1e3:.0f} kB, {len(sections)} sections")


if __name__ == "__main__":
    main()
