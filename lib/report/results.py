"""What the stages left in reports/, as the report reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lib.evals.items import Item, read_items
from lib.pipeline.errors import SmeltError

MODELS = ("base", "chat", "reference")  # the items of the stage `evaluate`, in the order of the page


class Results:
    """The files of reports/, found through `find`, which turns a declared path into a real one (`Run.dep`)."""

    def __init__(self, find: Callable[[str], Path]) -> None:
        self._find = find

    def json(self, path: str) -> Any:
        """One JSON file.

        Raises:
            SmeltError: it is not JSON.
        """
        file = self._find(path)
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SmeltError(f"{path} is not JSON ({error}); delete it and run `dvc repro` to write it again") from None

    def metrics(self, stage: str, item: str | None = None) -> dict[str, Any]:
        """metrics.json of a stage, without the stage's name around it."""
        if item is None:
            return self.json(f"reports/{stage}/metrics.json")[stage]
        return self.json(f"reports/{stage}/{item}/metrics.json")[stage][item]

    def lineage(self, stage: str) -> dict[str, Any]:
        return self.json(f"reports/{stage}/lineage.json")

    def curve(self, stage: str, split: str) -> pd.DataFrame:
        """train.csv or val.csv of a training stage; columns step, tokens, loss and more."""
        return pd.read_csv(self._find(f"reports/{stage}/{split}.csv"))

    def items(self, model: str) -> dict[str, dict[str, Item]]:
        """What `model` scored on each item, by task and id."""
        return read_items(self._find(f"reports/evaluate/{model}/items.jsonl"))

    def samples(self, model: str) -> list[dict[str, str]]:
        """What `model` answered: task, prompt, answer, expected."""
        return self.json(f"reports/evaluate/{model}/samples.json")

    def rejects(self, source: str) -> dict[str, list[dict[str, str]]]:
        """What `clean` dropped of `source`: for each reason a few documents, with id, uri and beginning of the text."""
        return self.json(f"reports/clean/{source}/samples.json")

    def written(self) -> dict[str, Any]:
        """What the teacher wrote: some of what was `kept`, and of what was `rejected` for each reason."""
        return self.json("reports/synthesize/samples.json")
