"""Whether the evaluation is set up right: the published scores of SmolLM2-135M-Instruct, by `make bench-evaluation`.

Published are zero-shot figures of lighteval on whole sets and on the original weights (model card of
HuggingFaceTB/SmolLM2-135M-Instruct). Here they are of lm-eval, on a part of each set, on weights of 4 bits. What may
lie between the two is measured:

- the sample: the standard error of the questions asked here, and of the whole set's;
- the quantisation: the weights are moved once more by as much as rounding to Q4_1 moves them (uniformly within a step
  of their block of 32), and the paired difference of that is taken for what the first rounding did.

A difference within two standard errors of both together is explained by them. What is not measured: PIQA's file lacks
the set's long questions, on which the model does better (docs/EVALUATION.md).
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from lib.pipeline.offline import stay_offline

ROOT = Path(__file__).parents[2]
BLOCK, LEVELS = 32, 15  # Q4_1: a block's smallest value and 15 steps


class Published(NamedTuple):
    task: str
    metric: str
    score: float
    questions: int  # of the whole set
    of: str


# lighteval's loglikelihood accuracy is normalised by characters, as our accuracy_normalised.
PUBLISHED = [
    Published("piqa", "accuracy_normalised", 0.663, 1838, "this model"),
    Published("mmlu_cloze", "accuracy_normalised", 0.293, 14042, "this model"),
    Published("openbookqa", "accuracy_normalised", 0.346, 500, "its base"),
    Published("commonsenseqa", "accuracy_normalised", 0.339, 1221, "its base"),
]


def move_as_rounding_does(model: Any, seed: int) -> None:
    """Move every matrix of the blocks by noise of the size of Q4_1's rounding, in place."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "layers" in name:
                blocks = weight.view(-1, BLOCK)
                step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / LEVELS
                blocks += step * (torch.rand(blocks.shape, generator=draw) - 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=400, help="questions of each task")
    parser.add_argument("--tasks", nargs="*", default=[one.task for one in PUBLISHED])
    parser.add_argument("--assets", type=Path, default=ROOT / "data" / "assets")
    options = parser.parse_args()
    stay_offline()
    import torch

    from lib.evals.benchmarks import Benchmarks
    from lib.evals.items import Item, mean_score, paired_difference
    from lib.evals.language_model import load_language_model
    from lib.params.results import BenchmarkTask

    settings = {name: BenchmarkTask(few_shot=0, limit=None) for name in options.tasks}
    benchmarks = Benchmarks(settings, options.assets, options.limit, batch_rows=16, seed=1)
    lm = load_language_model(options.assets / "smollm2", torch.device("cpu"))
    found: list[dict[str, dict[str, Item]]] = []
    for state in ("as it is", "moved"):
        if state == "moved":
            move_as_rounding_does(lm.model, seed=1)
        items: dict[str, dict[str, Item]] = {}
        for name in options.tasks:
            started = time.perf_counter()
            measured = benchmarks.measure(lm, name)
            for item in measured["items"]:
                items.setdefault(item.task, {})[item.id] = item
            seconds = time.perf_counter() - started
            print(f"{name}, weights {state}: {seconds:.0f} s, {measured['metrics']}", flush=True)
        found.append(items)

    print(f"\n{'task':<15}{'published':>10}{'here':>17}{'moved again':>17}{'difference':>12}{'in std. errors':>16}")
    for name, metric, published, questions, of in PUBLISHED:
        if name not in options.tasks:
            continue
        here, moved = (items[f"{name}/{metric}"] for items in found)
        mean = mean_score(here.values())
        shift, _ = paired_difference(here, moved)
        assert mean.value is not None
        assert mean.stderr is not None
        assert shift.value is not None
        whole = published * (1 - published) / questions
        error = math.sqrt(mean.stderr**2 + whole + shift.value**2 + (shift.stderr or 0) ** 2)
        difference = mean.value - published
        changed = sum(here[key].score != moved[key].score for key in here) / len(here)
        print(
            f"{name:<15}{published:>10.1%}{mean.value:>10.1%} ±{mean.stderr:>5.1%}{shift.value:>+10.1%} ±"
            f"{shift.stderr or 0:>5.1%}{difference:>+12.1%}{difference / error:>+16.1f}"
            f"   published of {of}; {len(here)} questions, {changed:.1%} answered otherwise when moved"
        )


if __name__ == "__main__":
    main()
