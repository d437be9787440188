"""The cache, the budget, and answers that are not in form: against a real server on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lib.completion.endpoint import BudgetSpent
from lib.completion.types import Completion
from tests.completion.server import Handler, Server, endpoint, request
from tests.text.project import REPOSITORY

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


# ----------------------------------------------------------------------------------------------------------------------
# Cache


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    requests = [request("a"), request("b"), request("a", seed=2), request("a", temperature=1.0)]
    with Server() as server:
        with endpoint(server, tmp_path) as model:
            first = list(model.complete_all(requests))
        with endpoint(server, tmp_path) as model:
            assert list(model.complete_all(requests)) == first
            assert (model.asked, model.cost.requests, model.cost.tokens_in) == (0, 4, 28)
        assert len(server.asked) == 4
        with endpoint(server, tmp_path, model="another") as model:
            list(model.complete_all(requests[:1]))
        assert len(server.asked) == 5


@pytest.mark.parametrize("content", ["", "{", '{"asked": 1}', '{"completion": {"text": "x"}}', "[]"])
def test_a_broken_file_of_the_cache_counts_as_missing(tmp_path: Path, cache: Path, content: str) -> None:
    with Server() as server:
        with endpoint(server, tmp_path) as model:
            (kept,) = model.complete_all([request("a")])
        (file,) = cache.rglob("*.json")
        whole = file.read_text()
        file.write_text(content)
        with endpoint(server, tmp_path) as model:
            assert list(model.complete_all([request("a")])) == [kept]
        assert len(server.asked) == 2
        assert file.read_text() == whole


def test_the_cache_lies_in_the_repository_and_is_shared_with_temporary_workspaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMELT_RESPONSES")
    with Server() as server:
        with endpoint(server, tmp_path / "repository") as model:
            list(model.complete_all([request("a")]))
        assert list((tmp_path / "repository/.responses").rglob("*.json"))
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
        with endpoint(server, tmp_path / "workspace") as model:
            list(model.complete_all([request("a")]))
        assert len(server.asked) == 1


PROGRAM = """
import sys
from pathlib import Path
from tests.completion.server import endpoint, request
with endpoint(sys.argv[1], Path.cwd()) as model:
    print([answer.text for answer in model.complete_all(request(str(number)) for number in range(12))])
"""


def test_a_killed_run_asks_nothing_twice(tmp_path: Path, cache: Path) -> None:
    def only_eight(handler: Handler) -> None:
        if handler.number < 8:
            handler.answer()
        else:
            handler.owner.over.wait(30)

    command, environment = [sys.executable, "-c", PROGRAM], {**os.environ, "SMELT_REQUESTS": "2"}
    with Server(only_eight) as server:
        with subprocess.Popen([*command, server.url], cwd=REPOSITORY, env=environment) as killed:
            while len(server.asked) < 10 or len(list(cache.rglob("[!.]*.json"))) < 8:  # eight are kept, two under way
                assert killed.poll() is None
            killed.send_signal(signal.SIGKILL)
        before = [body["messages"][0]["content"] for body in server.asked]
        server.script = Handler.answer
        done = subprocess.run(
            [*command, server.url], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
        )
        after = [body["messages"][0]["content"] for body in server.asked[10:]]
    assert eval(done.stdout) == [f"re: {number}" for number in range(12)]
    answered = set(before[:8])
    assert len(answered) == 8
    assert Counter(after) == Counter({str(number) for number in range(12)} - answered)


# ----------------------------------------------------------------------------------------------------------------------
# Budget: every answer costs 7 + 3 tokens


@pytest.mark.parametrize(
    ("limits", "answered", "why"),
    [
        ({"requests": 4}, 4, "requests"),
        ({"requests": 9}, 9, None),
        # The worst that a prompt of one letter can cost is 33 tokens, and its answer 5: 38 after 10 for each before.
        ({"tokens": 58}, 3, "tokens"),
        ({"tokens": 57}, 2, "tokens"),
        ({"tokens": 37}, 0, "tokens"),
        ({"money": 58.0, "price_in": 1e6, "price_out": 1e6}, 3, "money"),
        ({"money": 57.9, "price_in": 1e6, "price_out": 1e6}, 2, "money"),
    ],
)
def test_a_budget_ends_it_at_the_same_request_cached_or_not_and_however_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, limits: dict, answered: int, why: str | None
) -> None:
    requests = [request(letter) for letter in "abcdefghi"]
    with Server() as server:
        for at_once, known in (("1", False), ("4", False), ("4", True)):
            monkeypatch.setenv("SMELT_RESPONSES", str(cache / at_once))
            monkeypatch.setenv("SMELT_REQUESTS", at_once)
            with endpoint(server, tmp_path, **limits) as model:
                assert len(list(model.complete_all(requests))) == answered
                assert model.stopped == why
                assert model.asked == (0 if known else answered)
                assert model.cost.tokens_in + model.cost.tokens_out == 10 * answered
        assert len(server.asked) == 2 * answered


def test_one_answer_beyond_the_budget_is_an_error(tmp_path: Path) -> None:
    with Server() as server, endpoint(server, tmp_path, requests=1) as model:
        say = {"max_tokens": 5, "temperature": 0, "seed": 1}
        assert model.complete([{"role": "user", "content": "a"}], **say) == Completion("re: a", "stop", 7, 3)
        with pytest.raises(BudgetSpent, match="requests"):
            model.complete([{"role": "user", "content": "b"}], **say)
        assert len(server.asked) == 1


# ----------------------------------------------------------------------------------------------------------------------
# Form


def by_seed(handler: Handler) -> None:
    handler.answer(json.dumps({"a": "fine"}) if handler.body["seed"] >= 3 else "Sure! Here is your JSON:")


@pytest.mark.parametrize(("attempts", "temperature", "asked"), [(3, 0.5, 3), (2, 0.5, 2), (3, 0.0, 1)])
def test_an_answer_that_is_not_in_form_is_asked_for_with_other_seeds(
    tmp_path: Path, attempts: int, temperature: float, asked: int
) -> None:
    """Where there is a temperature: without, all seeds say the same."""
    with Server(by_seed) as server, endpoint(server, tmp_path, attempts=attempts) as model:
        (answer,) = model.complete_all([request("x", schema=SCHEMA, temperature=temperature)])
        assert model.cost.requests == asked
    assert [body["seed"] for body in server.asked] == [1, 2, 3][:asked]
    assert answer.reason == "not_in_form" if asked < 3 else answer.text == '{"a": "fine"}'


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ('{"a": "x"', "length", "cut_off"),
        ('{"a": "x"', "stop", "not_in_form"),
        ('{"a": 7}', "stop", "not_in_form"),
        ('{"b": "x"}', "stop", "not_in_form"),
        ('{"a": "x", "b": "x"}', "stop", "not_in_form"),
        ('["x"]', "stop", "not_in_form"),
        ("", "stop", "not_in_form"),
    ],
)
def test_an_answer_outside_the_schema_is_rejected(tmp_path: Path, text: str, finish: str, reason: str) -> None:
    with Server(lambda handler: handler.answer(text, finish=finish)) as server, endpoint(server, tmp_path) as model:
        (answer,) = model.complete_all([request("x", schema=SCHEMA)])
    assert answer.reason == reason
