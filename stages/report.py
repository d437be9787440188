"""Gather what every stage measured into reports/index.html, one page that opens offline, and a data card."""

from pathlib import Path

from lib.pipeline.run import Run, stage
from lib.report import (
    cleaning,
    cost,
    data_card,
    documents,
    evaluation,
    lineage,
    overview,
    page,
    preferences,
    privacy,
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
        "chat": run.param("chat"),
        "finetune": run.param("finetune"),
        "preferences": run.param("preferences"),
        "prefer": run.param("prefer"),
        "evaluate": run.param("evaluate"),
        "export": export,
        "index": run.param("index"),
    }
    reference = Path(assets["smollm2"].members[0]).stem

    # What the page says
    summary = overview.summary(results, export.name, reference, runs, params["finetune"])
    sections = [
        evaluation.quality(results, reference),
        evaluation.answers(results),
        training.curves(results),
        preferences.preferences(results),
        documents.mixture(results, sources),
        documents.rejected(results, sources),
        cleaning.cleaned(results, sources),
        privacy.privacy(results, sources),
        cost.cost(runs),
        cost.products(results),
        lineage.lineage(results, sources, params, runs, lineage.origin(run.root)),
    ]

    html = page.render(summary, sections, written=lineage.written())
    run.out("reports/index.html").write_text(html, encoding="utf-8")
    run.out("reports/data_card.md").write_text(data_card.card(results, export.name, sources), encoding="utf-8")
    run.log(f"reports/index.html: {len(html.encode()) / 1e3:.0f} kB, {len(sections)} sections")


if __name__ == "__main__":
    main()
