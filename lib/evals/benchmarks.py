"""Public benchmarks through lm-evaluation-harness: on local files, or from a hub.

A task of ours is a YAML file in `tasks/` over files of data/assets: no network, no cache. Any other name is one of the
harness's own tasks, whose questions come from a Hugging Face hub (in its cache afterwards, as HF_HOME says).
"""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.evals.estimates import Estimate, mean
from lib.evals.items import Item
from lib.evals.language_model import LanguageModel
from lib.params.results import BenchmarkTask
from lib.pipeline.errors import SmeltError

TASKS = Path(__file__).parent / "tasks"
_NAMES = {"acc": "accuracy", "acc_norm": "accuracy_normalised", "f1": "token_f1"}  # others keep the harness's name


def local_tasks() -> dict[str, str]:
    """The tasks of ours, each with the asset that it reads."""
    found = {}
    for path in sorted(TASKS.glob("*.yaml")):
        loader = YAML(typ="safe")
        loader.constructor.add_multi_constructor("!function", lambda *_: None)
        task = loader.load(path)
        found[task["task"]] = task["dataset_kwargs"]["asset"]
    return found


class Benchmarks:
    """Tasks by name, each with its settings. Names are checked, and files read, before anything is measured.

    Args:
        assets: the folder of the assets.
        batch_rows: questions with one answer that go through the model together.
        seed: of the choice of questions and of examples.

    Raises:
        SmeltError: a name is no task, its questions cannot be had (no network), or a file is not as it should be.
    """

    def __init__(
        self, tasks: Mapping[str, BenchmarkTask], assets: Path, limit: int, batch_rows: int, seed: int
    ) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._limit, self._batch_rows, self._seed = limit, batch_rows, seed
        self._settings = tasks
        own, foreign = local_tasks(), [name for name in tasks if name not in local_tasks()]
        manager = _manager(assets, bool(foreign))
        if unknown := [name for name in foreign if name not in manager.all_tasks]:
            raise SmeltError(
                f"evaluate.tasks in params.yaml: no such task: {', '.join(unknown)}. On local files there are "
                f"{', '.join(own)}; `lm_eval ls tasks` lists those of the hub"
            )
        self._loaded = {name: _load(manager, name, name in own) for name in tasks}

    def measure(self, lm: LanguageModel, name: str) -> dict[str, Any]:
        """Measure one task.

        Returns:
            `metrics`: how many `questions`, and every metric of the task with its standard error; for choices
            `accuracy`, and `accuracy_normalised` (log likelihood per character, so that long answers are not at a
            disadvantage). `items`: see lib/evals/items.py. `samples`: each question with the model's choice.
        """
        from lm_eval import evaluate

        from lib.evals.harness import harness_model

        loaded, settings = self._loaded[name], self._settings[name]
        limit = self._limit if settings.limit is None else settings.limit
        chosen = {key: _draw(len(task.eval_docs), limit, self._seed) for key, task in loaded["tasks"].items()}
        for task in loaded["tasks"].values():
            default = task.get_config("num_fewshot") or 0
            task.set_config(key="num_fewshot", value=default if settings.few_shot is None else settings.few_shot)
            task.set_fewshot_seed(seed=self._seed)
        # Not simple_evaluate, which lists the machine's packages each time: 3 s.
        found = evaluate(harness_model(lm, self._batch_rows), loaded, samples=chosen, log_samples=True)
        metrics: dict[str, Any] = {"questions": sum(len(indices) for indices in chosen.values())}
        samples = [(key, sample) for key in loaded["tasks"] for sample in found["samples"][key]]
        items = list(_items(name, samples))
        if len(loaded["tasks"]) == 1:
            metrics |= _metrics(found["results"][next(iter(loaded["tasks"]))])
        else:  # a group: over all of its questions
            for key in dict.fromkeys(item.task for item in items):
                metrics[key.partition("/")[2]] = mean([item.score for item in items if item.task == key]).as_metric()
        return {
            "metrics": metrics,
            "items": items,
            "samples": [_shown(sample) for _, sample in samples],
        }


@functools.cache
def _manager(assets: Path, with_foreign: bool) -> Any:
    """Our tasks, and the harness's own if they are asked for: those are 14,000 files, which take 10 s to list."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=TASKS, include_defaults=with_foreign, metadata={"assets": str(assets)})


def _load(manager: Any, name: str, local: bool) -> dict[str, Any]:
    """The harness's tasks of a name: one, or those of a group."""
    try:
        return manager.load([name])
    except SmeltError:
        raise
    except Exception as error:  # the hub's client has its own for each of its troubles, and requests its own
        if local:
            raise
        raise SmeltError(
            f"evaluate.tasks in params.yaml: the questions of {name} come from a hub, and that did not answer "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}). With a network run the same command again; "
            f"without one, take {name} out of the list"
        ) from None


def _draw(count: int, limit: int, seed: int) -> list[int]:
    """`limit` of `count` questions by the seed, ascending. A larger limit takes the same ones and more."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return sorted(order[:limit])


def _metrics(scores: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The harness's `acc,none` and `acc_stderr,none` as estimates."""
    found = {}
    for key, value in scores.items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = scores.get(f"{metric}_stderr,{kind}")
        known = isinstance(stderr, int | float) and not math.isnan(stderr)
        name = _NAMES.get(metric, metric) + ("" if kind == "none" else f"_{kind}")
        found[name] = Estimate(float(value), float(stderr) if known else None).as_metric()
    return found


def _items(name: str, samples: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[Item]:
    """One item for each metric of each question that is a number."""
    for task, sample in samples:
        known = sample["doc"].get("id") if isinstance(sample["doc"], dict) else None
        item = str(known) if task == name and known is not None else f"{task}#{sample['doc_id']}"
        for metric in sample["metrics"]:
            if isinstance(sample[metric], int | float):
                kind = "" if sample["filter"] == "none" else f"_{sample['filter']}"
                yield Item(f"{name}/{_NAMES.get(metric, metric)}{kind}", item, float(sample[metric]))


def _shown(sample: Mapping[str, Any]) -> dict[str, str]:
    """A question, what the model chose or said, and what is right."""
    arguments, answers = sample["arguments"], sample["filtered_resps"]
    if len(arguments) > 1 and isinstance(answers[0], tuple | list):  # the log likelihood of each choice
        said = [argument[1].strip() for argument in arguments]
        chosen = max(range(len(said)), key=lambda index: float(answers[index][0]))
        target = sample["target"]
        expected = said[target] if isinstance(target, int) and 0 <= target < len(said) else str(target)
        return {"prompt": arguments[0][0], "answer": said[chosen], "expected": expected}
    return {"prompt": arguments[0][0], "answer": str(answers[0]).strip(), "expected": str(sample["target"])}
