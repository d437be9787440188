"""Build conversations from the documents' own questions and answers; a document's split is its conversations' split."""

from __future__ import annotations

import json
from collections import Counter

from lib.pipeline.run import Run, stage
from lib.text.conversations import KINDS, choose, converse
from lib.text.documents import count_documents, read_documents

SPLITS = ("train", "val", "test")


@stage
def main(run: Run) -> None:
    mix, most, seed = run.dep("data/mix"), run.param("chat").model_dump(), run.param("seed")
    out = run.out("data/chat")
    out.mkdir()
    counts = {}
    for split in SPLITS:
        documents = run.progress(read_documents(mix / split), count_documents(mix / split), f" {split} documents")
        chosen = choose((found for document in documents for found in converse(document)), most, seed)
        with open(out / f"{split}.jsonl", "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(found._asdict(), ensure_ascii=False) + "\n" for found in chosen)
        number = Counter(found.kind for found in chosen)
        counts[split] = {kind: number[kind] for kind in KINDS}
    run.metrics(counts)

    total = sum(counts["train"].values())
    if total:
        run.log(f"{total} training conversations: " + ", ".join(f"{n} {kind}" for kind, n in counts["train"].items()))
    else:
        run.log("no document holds a question and its answer, so there is nothing to fine-tune on")


if __name__ == "__main__":
    main()
