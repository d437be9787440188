"""What the models said, in full."""

from __future__ import annotations

from lib.report.benchmarks import title_of
from lib.report.formats import NONE
from lib.report.page import Block, Details, Note, Sample, Section
from lib.report.results import MODELS, Results


def answers(results: Results) -> Section:
    """What the three models said to the same prompts, beside the expected answer; benchmarks folded, task by task."""
    said = {
        model: {(sample["task"], sample["prompt"]): sample for sample in results.samples(model)} for model in MODELS
    }
    asked = list(dict.fromkeys(key for samples in said.values() for key in samples))
    samples: dict[str, list[Block]] = {}
    for task, prompt in asked:
        found = {model: samples.get((task, prompt)) for model, samples in said.items()}
        samples.setdefault(task, []).append(
            Sample(
                prompt,
                next(sample["expected"] for sample in found.values() if sample),
                [(model, sample["answer"] if sample else NONE) for model, sample in found.items()],
            )
        )
    own = [block for task in ("commands", "subjects") for block in samples.pop(task, [])]
    blocks = own + [Details(f"{title_of(task)}: {len(found)} questions", found) for task, found in samples.items()]
    return Section("samples", "What it says", blocks or [Note("No samples: evaluate.samples is 0 in params.yaml.")])
