"""Search what was trained on, documents and conversations, for items of the evaluation sets and for held-out tasks."""

from __future__ import annotations

from lib.pipeline.run import Run, stage
from lib.text import contamination
from lib.text.documents import count_documents, read_documents

DOCUMENTS, CONVERSATIONS, HELD_OUT = "data/mix/train", "data/chat/train.jsonl", "data/chat/test.jsonl"
SHOWN = 20  # findings in the report, of each length of run


@stage
def main(run: Run) -> None:
    decontaminated, shorter = run.param("dedup.decontaminate"), run.param("contamination").ngram
    folders = {name: run.dep(f"data/assets/{name}") for name in decontaminated.sets}
    folders[contamination.HELD_OUT] = contamination.write_held_out(run.dep(HELD_OUT), run.scratch / "held_out")
    lengths = sorted({decontaminated.ngram, shorter}, reverse=True)
    indexes = contamination.indexes(folders, decontaminated, lengths)

    def documents():
        documents = read_documents(run.dep(DOCUMENTS))
        for document in run.progress(documents, count_documents(run.dep(DOCUMENTS)), " documents"):
            yield document.id, document.text

    def conversations():
        for name, messages in contamination.turns(run.dep(CONVERSATIONS)):
            yield name, "\n".join(messages)

    measured, shown = {}, {}
    for ngram, index in indexes.items():
        found = {
            "documents": contamination.search(index, documents()),
            "conversations": contamination.search(index, conversations()),
        }
        measured[str(ngram)] = contamination.measure(index, found)
        shown[str(ngram)] = [
            {"place": place, **one._asdict()} for place, several in found.items() for one in several[:SHOWN]
        ]
        for name, figures in measured[str(ngram)].items():
            run.log(f"runs of {ngram} words: {name}: {figures}")
    run.report("found.json", shown)
    run.metrics({"words": measured})


if __name__ == "__main__":
    main()
