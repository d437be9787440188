"""Measure a model (`base`, `chat` or the `reference`): bits per byte of held-out text by source, the commands it gives
for held-out tasks of the manual, with passages from the index and without, instructions that a program can check, and
public benchmarks; and whether the index finds the documents of held-out questions, in each way of searching it. Every
figure has its standard error; items.jsonl has every item's score, for paired comparisons.

What a part measured is kept in .scratch/measured by its content: the model, the questions, the settings, the code. So a
run that is killed loses one part at most, a change of one part, or of the data, measures no other again, and the index
is searched once for all models.
"""

from __future__ import annotations

import json
from typing import Any

from lib.evals.benchmarks import Benchmarks, local_tasks
from lib.evals.kept import Kept
from lib.pipeline.offline import stay_offline
from lib.pipeline.run import Run, stage

TEXT, CONVERSATIONS, INDEX = "data/mix/test", "data/chat", "models/index"
IFBENCH, NLTK = "data/assets/ifbench", "data/assets/nltk"


@stage
def main(run: Run) -> None:
    settings, seed = run.param("evaluate"), run.param("seed")
    if settings.tasks.keys() <= local_tasks().keys():
        stay_offline()
    import torch

    from lib.backends.select import select_backend
    from lib.evals.answers import Answered, write_answers
    from lib.evals.bits_per_byte import bits_per_byte, document_bits
    from lib.evals.command_line import read_manual
    from lib.evals.commands import read_examples, score_commands
    from lib.evals.generation import generate
    from lib.evals.held_out import sample_held_out
    from lib.evals.instructions.follow import OWN, checkers, read_prompts, score
    from lib.evals.items import Item, to_lines
    from lib.evals.language_model import load_language_model
    from lib.evals.retrieval import DEPTH, as_hits, look_up, score_retrieval, with_passages
    from lib.rag.build import settings_of
    from lib.rag.embed import load_embedder
    from lib.rag.index import Index
    from lib.rag.search import Retriever

    # The questions
    documents = sample_held_out(run.dep(TEXT), settings.held_out_bytes)
    conversations = run.dep(CONVERSATIONS)
    held_out = read_examples(conversations / "test.jsonl", "manual", None)
    commands = held_out[: settings.commands]
    articles = read_examples(conversations / "test.jsonl", "encyclopedia", settings.articles)  # for `judge`
    for found, what, where in ((documents, "text", TEXT), (commands, "commands", CONVERSATIONS)):
        if not found:
            run.log(f"{where} holds no {what}: nothing to measure there")
    instructions = {
        "own": read_prompts(OWN, settings.instructions.own),
        "ifbench": read_prompts(run.dep(IFBENCH) / "IFBench_test.jsonl", settings.instructions.ifbench),
    }
    assets = {f"data/assets/{asset}": run.dep(f"data/assets/{asset}") for asset in local_tasks().values()}
    home = next(iter(assets.values())).parent
    benchmarks = Benchmarks(settings.tasks, home, settings.task_limit, settings.batch_rows, seed)

    # What the index finds: the same for every model
    index = Index.open(run.dep(INDEX))
    indexed, searched = set(index.documents()), settings_of(index)
    index.close()
    models = [searched.embedder.folder, *([searched.rerank.folder] if searched.rerank else [])]
    (folder,) = set(run.declared.data) - {TEXT, CONVERSATIONS, INDEX, IFBENCH, NLTK, *models, *assets}
    for part in (*models, folder):
        run.dep(part)
    kept = Kept(run)
    questions = [*held_out, *read_examples(conversations / "test.jsonl", "encyclopedia", None)]
    questions = [one for one in questions if one.document in indexed][: settings.retrieval.questions]
    retrievable = [one for one in held_out if one.document in indexed][: settings.retrieval.commands]
    looked_up = list(dict.fromkeys(one.prompt for one in (*questions, *retrievable)))
    modes, depth = settings.retrieval.modes, max(DEPTH, searched.top_k)

    def search() -> dict[str, Any]:
        embedder, stores = load_embedder(searched.embedder, run.root, 1), run.scratch_home.parent / "stores"
        with Retriever.open(run.dep(INDEX), embedder, stores, run.root, run.log) as retriever:
            return look_up(retriever, looked_up, modes, depth)

    every = kept.part(INDEX, "retrieval", [looked_up, modes, depth, [kept.inputs[one] for one in models]], search)
    found_for = {mode: dict(zip(looked_up, map(as_hits, lists), strict=True)) for mode, lists in every.items()}
    hits = {mode: [found[one.prompt] for one in questions] for mode, found in found_for.items()}
    passages = {mode: [found[one.prompt][: searched.top_k] for one in retrievable] for mode, found in found_for.items()}

    # The model
    torch.set_num_threads(run.workers)
    backend = select_backend()
    run.observed["device"] = backend.describe()
    run.log(f"loading {folder}")
    model = load_language_model(run.dep(folder), backend.device)

    def answers(name: str, prompts: list[Any], most: int) -> list[str]:
        return kept.part(folder, name, [prompts, most], lambda: generate(model, prompts, most, run.progress))

    # What it reads, answers and chooses
    texts = [document.text for document in documents]
    bits = kept.part(folder, "bits_per_byte", texts, lambda: document_bits(model, texts, run.progress))
    most = settings.max_new_tokens
    asked = {example.id: example for example in (*commands, *articles, *retrievable)}
    said = dict(zip(asked, answers("commands", [one.messages for one in asked.values()], most), strict=True))
    room = settings.retrieval.prompt_tokens
    grounded = {mode: with_passages(model, retrievable, found, room, most) for mode, found in passages.items()}
    prompts = list({json.dumps(one.messages): one.messages for every in grounded.values() for one in every}.values())
    aided = answers("commands_with_passages", prompts, most)  # ways that found the same passages ask once
    answer_to = {json.dumps(prompt): answer for prompt, answer in zip(prompts, aided, strict=True)}
    followed = {
        name: answers(
            f"instructions_{name}",
            [[{"role": "user", "content": one.prompt}] for one in prompts],
            settings.instructions.max_new_tokens,
        )
        for name, prompts in instructions.items()
    }
    chosen = {
        name: kept.part(
            folder, f"task_{name}",
            [task.model_dump(), settings.task_limit, settings.batch_rows, seed,
             kept.inputs.get(f"data/assets/{local_tasks().get(name)}")],
            lambda name=name: benchmarks.measure(model, name),
        )
        for name, task in settings.tasks.items()
    }  # fmt: skip

    # What that is worth
    manual = read_manual(conversations, "manual")
    text, items = bits_per_byte(documents, bits)
    scored = {}
    for name, answered, examples in (
        ("commands", [said[example.id] for example in commands], commands),
        ("commands_alone", [said[example.id] for example in retrievable], retrievable),
    ):
        scored[name], found = score_commands(name, answered, examples, manual)
        items += found
    scored["commands_with_passages"], retrieval = {}, {}
    for mode, asked_with in grounded.items():
        answered = [answer_to[json.dumps(one.messages)] for one in asked_with]
        values, found = score_commands(f"commands_with_passages_{mode}", answered, retrievable, manual)
        scored["commands_with_passages"][mode] = values | {"page_found": sum(one.found for one in asked_with)}
        retrieval[mode], ranks = score_retrieval(f"retrieval_{mode}", questions, hits[mode])
        items += [*found, *ranks]
    obeyed = {}
    with checkers(run.dep(NLTK)) as known:
        for name, prompts in instructions.items():
            obeyed[name], found = score(f"instructions_{name}", prompts, followed[name], known)
            items += found
    items += [Item(*item) for task in chosen.values() for item in task["items"]]

    answered = [
        Answered(example.id, task, example.prompt, example.expected, said[example.id])
        for task, examples in (("commands", commands), ("subjects", articles))
        for example in examples
    ]
    write_answers(run.out(f"reports/evaluate/{run.item}/answers.jsonl"), answered)
    first = answered[: len(commands)][: settings.samples] + answered[len(commands) :][: settings.samples // 2]
    shown = [{"task": one.kind, "prompt": one.prompt, "answer": one.answer, "expected": one.expected} for one in first]
    shown += [
        {"task": name, **sample} for name, task in chosen.items() for sample in task["samples"][: settings.samples]
    ]
    run.report("samples.json", shown)
    run.out(f"reports/evaluate/{run.item}/items.jsonl").write_text("".join(to_lines(items)), encoding="utf-8")
    run.metrics(
        {
            "bits_per_byte": text,
            **scored,
            "retrieval": retrieval,
            "instructions": obeyed,
            "tasks": {name: task["metrics"] for name, task in chosen.items()},
        }
    )


if __name__ == "__main__":
    main()
