"""Search what was trained on, documents and conversations, for items of the evaluation sets and for held-out tasks."""

from __future__ import annotations

from collections.abc import Iterator

from lib.pipeline.run import Run, stage
from lib.text import contamination
from lib.text.documents import count_documents, read_documents

DOCUMENTS, CONVERSATIONS, HELD_OUT = "data/mix/train", "data/chat/train.jsonl", "data/chat/test.jsonl"
SHOWN = 20  # findings in the report, of each search and place


@stage
def main(run: Run) -> None:
    decontaminated, shorter = run.param("dedup.decontaminate"), run.param("contamination").ngram
    folders = {name: run.dep(f"data/assets/{name}") for name in decontaminated.sets}
    lengths = sorted({decontaminated.ngram, shorter}, reverse=True) if folders else []
    indexes = {str(ngram): contamination.build(folders, decontaminated, ngram) for ngram in lengths}
    indexes["whole"] = contamination.build_held_out(run.dep(HELD_OUT), run.scratch / "held_out", decontaminated)

    def documents() -> Iterator[tuple[str, str]]:
        found = read_documents(run.dep(DOCUMENTS))
        for document in run.progress(found, count_documents(run.dep(DOCUMENTS)), " documents"):
            yield document.id, document.text

    conversations = (
        (f"{name}#{number}", "\n".join(messages))
        for number, (name, messages) in enumerate(contamination.turns(run.dep(CONVERSATIONS)))
    )
    places = {
        "documents": contamination.search(indexes, contamination.once(documents())),
        "conversations": contamination.search(indexes, conversations),
    }
    measured, shown = {}, {}
    for name, index in indexes.items():
        found = {place: several[name] for place, several in places.items()}
        measured[name] = contamination.measure(index, found)
        shown[name] = [{"place": place, **one._asdict()} for place, several in found.items() for one in several[:SHOWN]]
        for of_set, figures in measured[name].items():
            what = "whole items" if name == "whole" else f"runs of {name} words"
            found_in = f"{figures['documents']} in documents, {figures['conversations']} in conversations"
            run.log(f"{what}: {of_set}: {figures['found']} of {figures['searched']} found, {found_in}")
    run.report("found.json", shown)
    run.metrics({"words": measured})


if __name__ == "__main__":
    main()
