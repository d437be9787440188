"""Pairs by a judge: a server here that knows what is better or does not, and the judge of the default itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lib.completion.endpoint import connect
from lib.judge.judge import Judge, Pair
from lib.params.load import load, read_yaml
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from tests.completion.server import Handler, Server, completion
from tests.text import project
from tests.trainers.test_prefer_stage import folder, make, read, task, write  # noqa: F401

TASKS = [task(f"{number} in?", f"aws s{number} put-object --key {number} --body none") for number in range(20)]
GOLD = {each["messages"][1]["content"] for each in TASKS}
CONTROL = 12  # questions, each with two worse answers, compared in both orders


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "responses"))


def judge_by(better: Callable[[str, str], bool]) -> Callable[[Handler], None]:
    """A judge that knows right answers from wrong ones, and else takes the first answer if it is `better`."""

    def script(handler: Handler) -> None:
        _, _, answers = handler.said.partition("Answer A: ")
        first, _, rest = answers.partition("\n\nAnswer B: ")
        second, _, _ = rest.rpartition("\n\nSay only")
        right = first in GOLD if {first, second} & GOLD else better(first, second)
        handler.give(completion(json.dumps({"worse": "B" if right else "A"})))

    return script


def prepare(root: Path, tokenizer: Path, tasks: int = 20, **changes: Any) -> Path:
    """A project whose pairs a judge makes; `changes` are of `judge`."""
    sampled = {"tasks": tasks, "max_new_tokens": 6, "kinds": ["manual"], "temperature": 1.0}
    make(root, tokenizer, **{"from": "judge", "judge": sampled})
    write(root / "data/chat/train.jsonl", TASKS)
    params = read_yaml(root / "params.yaml")
    params["judge"] |= {"control": CONTROL, **changes}
    YAML().dump(params, root / "params.yaml")
    return root


def served(root: Path, script: Callable[[Handler], None], requests: int | None = None) -> dict[str, Any]:
    """The metrics of the stage, with a judge that answers by `script`."""
    with Server(script) as server:
        params = read_yaml(root / "params.yaml")
        params["judge"]["model"]["kind"] = "openai"
        params["judge"]["model"]["openai"] |= {"url": server.url, "model": "m", "retries": 0, "retry_seconds": 0.01}
        params["judge"]["model"]["budget"]["requests"] = requests
        YAML().dump(params, root / "params.yaml")
        return project.run(root, "preferences")


def made(root: Path) -> list[dict[str, Any]]:
    return [row for side in ("train", "val") for row in read(root / f"data/preferences/{side}.jsonl")]


def answers(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def test_what_the_judge_prefers_is_chosen(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    root = prepare(tmp_path, folder, with_reference=False)
    counts = served(root, judge_by(lambda first, second: first > second))
    assert counts["rows"] == 20
    assert len(made(root)) == counts["train"] + counts["val"] == 20 - sum(counts["rejected"].values()) > 10
    assert all(chosen > rejected for chosen, rejected in map(answers, made(root)))
    assert counts["judge"]["accuracy"]["value"] == 1.0
    # Another judge is another answer for the cache; what the model answers is the same, drawn by the seed.
    before = hash_path(root / "data/preferences")
    served(root, judge_by(lambda first, second: first > second))
    assert hash_path(root / "data/preferences") == before


def test_what_the_order_alone_decides_is_no_pair(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    with pytest.raises(SmeltError, match=r"0 pairs to train on.*Rejected: draw: \d+"):
        served(prepare(tmp_path, folder), judge_by(lambda first, second: True))


def test_a_judge_that_guesses_teaches_nothing(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    def guess(handler: Handler) -> None:
        handler.give(completion('{"worse": "B"}'))

    root = prepare(tmp_path, folder)
    with pytest.raises(SmeltError, match=r"is right on 50% of pairs with a known answer.*judge\.min_accuracy, 70%"):
        served(root, guess)
    assert not (root / "data/preferences").exists()


def test_without_known_answers_no_judge_is_believed(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    root = prepare(tmp_path, folder)
    write(root / "data/chat/train.jsonl", [each | {"kind": "own"} for each in TASKS])
    with pytest.raises(SmeltError, match="no task of the kinds manual and encyclopedia, on which a judge is measured"):
        served(root, judge_by(lambda first, second: True))


def test_the_budget_ends_it_and_what_was_judged_makes_pairs(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    root = prepare(tmp_path, folder)
    counts = served(root, judge_by(lambda first, second: first > second), requests=CONTROL * 4 + 20)
    assert len(made(root)) == 10
    assert counts["rejected"]["no_verdict"] > 5
    assert sum(counts["rejected"].values()) == 10
    assert counts["judge"]["stopped"] == "requests"


def test_the_judge_of_the_default_really_picks(tmp_path: Path, folder: Path, smollm2: Path) -> None:  # noqa: F811
    root = prepare(tmp_path, folder, tasks=4, control=1, min_accuracy=0.0)
    (root / "data/assets").mkdir()
    (root / "data/assets/smollm2").symlink_to(smollm2)
    counts = project.run(root, "preferences")
    assert counts["judge"]["identity"].startswith("gguf sha256:")
    expected = {each["messages"][0]["content"]: each["messages"][1]["content"] for each in TASKS}
    with connect(load(root / "params.yaml").judge.model, root, print) as endpoint:
        pairs = [Pair(question := row["prompt"][0]["content"], expected[question], *answers(row)) for row in made(root)]
        assert len(pairs) == counts["train"] + counts["val"] > 1
        assert [found.score for found in Judge(endpoint).preferences(pairs)] == [1.0] * len(pairs)
