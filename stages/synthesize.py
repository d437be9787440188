"""Have a teacher write questions and answers, summaries and rewrites from the training documents, and sift them.

What stays is data/synthetic/conversations.jsonl, each with where it came from; what does not, with its reason, is
data/synthetic/rejects/rejects.jsonl. Answers are cached: after a crash nothing is asked twice.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from lib.completion.endpoint import Endpoint, connect
from lib.completion.types import Rejected
from lib.pipeline.run import Run, stage
from lib.sources.teacher import ask, sift
from lib.sources.teacher.checks import check
from lib.sources.teacher.passages import Passage, choose
from lib.sources.teacher.sift import Item
from lib.text import decontaminate
from lib.text.documents import read_documents
from lib.text.pii.redact import Finder

SAMPLES = 5  # of what is kept, and of each reason


def write(run: Run, endpoint: Endpoint, tasks: list[tuple[str, Passage]], prompts: dict[str, ask.Prompt]) -> list[Item]:
    """What the teacher makes of each task, checked against its passage; fewer than the tasks if the budget ends."""
    settings, seed = run.param("synthesize"), run.param("seed")
    requests = (ask.request(kind, passage, prompts[kind], settings, seed) for kind, passage in tasks)
    answers = run.progress(endpoint.complete_all(requests), len(tasks), "item")
    items = []
    for (kind, passage), answer in zip(tasks, answers, strict=False):
        item = Item(kind, passage)
        items.append(item)
        if isinstance(answer, Rejected):
            item.reject(answer.reason, answer.detail)
            continue
        item.answer = ask.read_answer(kind, answer.text)
        item.messages = ask.conversation(kind, passage, item.answer)
        if wrong := check(kind, item.answer, passage.text, prompts[kind].about(passage.text), settings.checks):
            item.reject(*wrong)
    return items


def to_row(item: Item, teacher: str, prompt: ask.Prompt) -> dict[str, Any]:
    document = item.passage.document
    row = {
        "id": item.id,
        "kind": f"synthetic_{item.kind}",
        "document": document.id,
        "passage": item.passage.number,
        "uri": document.uri,
        "source": document.source,
        "licence": document.licence,
        "teacher": teacher,
        "prompt": prompt.hash,
    }
    if item.reason is None:
        return {**row, "messages": item.messages}
    return {**row, "reason": item.reason, "detail": item.detail, "answer": item.answer}


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def sample(item: Item) -> dict[str, str]:
    personal = (item.reason or "").startswith("pii_")  # the report page is for everyone's eyes
    written = "(not shown)" if personal else item.text
    return {"id": item.id, "passage": item.passage.text, "written": written, "detail": item.detail}


@stage
def main(run: Run) -> None:
    settings, seed, sources = run.param("synthesize"), run.param("seed"), run.param("sources")
    words = settings.passage_words

    # What is asked
    documents = read_documents(run.dep("data/mix/train")) if any(n != 0 for n in settings.sources.values()) else ()
    passages = choose(documents, settings.sources, (words.least, words.most), seed)
    tasks = [(kind, passage) for passage in passages for kind in settings.kinds]
    prompts = {kind: ask.read_prompt(kind) for kind in settings.kinds}

    # What is answered
    items: list[Item] = []
    teacher, stopped, cost = None, None, {"requests": 0, "tokens_in": 0, "tokens_out": 0, "money": 0.0}
    if tasks and settings.teacher.kind == "gguf":
        run.dep(settings.teacher.gguf.path)
    if tasks:
        with connect(settings.teacher, run.root, run.log) as endpoint:
            items = write(run, endpoint, tasks, prompts)
            teacher, stopped = endpoint.identity, endpoint.stopped
            cost = {**endpoint.cost._asdict(), "money": round(endpoint.cost.money(settings.teacher.budget), 6)}
            run.observed["requests_sent"] = endpoint.asked  # the others were cached

    # What of it stays
    finder = partial(Finder, run.param("pii"), run.dep("data/assets/ner"), run.dep("data/assets/places"))
    sift.reject_personal(items, sources, finder)
    params = run.param("dedup")
    if sift.left(items):
        sets = {name: run.dep(f"data/assets/{name}") for name in params.decontaminate.sets}
        index = decontaminate.build(sets, params.decontaminate)
        sift.reject_known(items, params, seed, index, run.scratch, run.workers)

    out = run.out("data/synthetic")
    kept, rejected = sift.left(items), [item for item in items if item.reason is not None]
    write_rows(out / "conversations.jsonl", (to_row(item, teacher, prompts[item.kind]) for item in kept))
    write_rows(out / "rejects" / "rejects.jsonl", (to_row(item, teacher, prompts[item.kind]) for item in rejected))
    kinds = sift.counts(items, lambda item: item.kind, settings.kinds)
    of_source = sift.counts(items, lambda item: item.passage.document.source, list(settings.sources))
    run.metrics(
        {
            "planned": len(tasks),
            "asked": len(items),
            "kept": len(kept),
            "rejected": len(rejected),
            "stopped_by_budget": stopped,
            "kinds": kinds,
            "sources": of_source,
            "cost": cost,
            "teacher": teacher,
            "prompts": {kind: prompt.hash for kind, prompt in prompts.items()},
        }
    )
    by_reason = itertools.groupby(sorted(rejected, key=lambda item: item.reason), key=lambda item: item.reason)
    run.report(
        "samples.json",
        {
            "kept": [sample(item) for item in kept[:SAMPLES]],
            "rejected": {
                reason: [sample(item) for item in itertools.islice(found, SAMPLES)] for reason, found in by_reason
            },
        },
    )
    if not tasks:
        run.log("synthesize.sources asks for nothing, so nothing was written")
        return
    if stopped:
        run.log(f"the budget ({stopped}) ended it after {len(items):,} of {len(tasks):,} items")
    run.log(f"kept {len(kept):,} of {len(items):,} items")


if __name__ == "__main__":
    main()
