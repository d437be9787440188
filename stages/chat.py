"""Build what fine-tuning learns from: conversations out of the documents, and plain text, by their shares of tokens.

A document's split is its conversations' split. Shares hold for training; what is held out are conversations alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lib.pipeline.run import Run, stage
from lib.text import chat_mix
from lib.text.conversations import Conversation, converse, read_conversations
from lib.text.documents import count_documents, read_documents
from lib.text.mix import split_of

SPLITS = ("train", "val", "test")
MIX = "data/mix"


def find(run: Run, split: str) -> Iterator[Conversation]:
    """Every conversation of a split: those of its documents, and those that another stage wrote about them."""
    folder = run.dep(MIX) / split
    for document in run.progress(read_documents(folder), count_documents(folder), f" {split} documents"):
        yield from converse(document)
    # data/synthetic (*.jsonl) is read where dvc.yaml names it as a dep of this stage.
    for dep in (dep for dep in run.declared.data if dep.startswith("data/synthetic")):
        for path in sorted(run.dep(dep).glob("*.jsonl")):
            for document, conversation in read_conversations(path, chat_mix.SYNTHETIC):
                if split_of(document, run.param("mix")) == split:
                    yield conversation


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@stage
def main(run: Run) -> None:
    settings, seed = run.param("chat"), run.param("seed")

    # What there is
    most = settings.most.model_dump()
    limits = {"train": most} | dict.fromkeys(("val", "test"), dict.fromkeys(most, settings.held_out))
    selected = {split: chat_mix.select(find(run, split), limits[split], seed) for split in SPLITS}

    # How much of it is taken
    texts = lambda: chat_mix.plain_texts(read_documents(run.dep(MIX) / "train"))  # noqa: E731
    groups = chat_mix.gather(selected["train"].conversations, texts, settings)
    chat_mix.share_out(groups, settings.tokens)

    # Write it
    out = run.out("data/chat")
    out.mkdir()
    write(out / "train.jsonl", chat_mix.conversation_rows(groups, seed))
    write(out / "text.jsonl", chat_mix.text_rows(groups["text"], texts))
    for split in ("val", "test"):
        held_out = selected[split].conversations
        write(out / f"{split}.jsonl", (chat_mix.to_row(one, chat_mix.group_of(one, settings)) for one in held_out))
    total = sum(group.tokens for group in groups.values())
    run.metrics(
        {
            "tokens": round(total),
            "groups": {name: group.metrics(total) for name, group in groups.items()},
            "splits": {split: selection.metrics() for split, selection in selected.items()},
        }
    )
    shares = ", ".join(f"{group.tokens / total:.1%} {name}" for name, group in groups.items())
    run.log(f"{total:,.0f} tokens by estimate: {shares}")


if __name__ == "__main__":
    main()
