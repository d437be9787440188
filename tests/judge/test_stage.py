"""The stage `judge`, whose judge is a server here that knows the answers, or does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.evals.answers import Answered, write_answers
from lib.evals.items import read_items
from lib.judge.judge import OutOfForm
from lib.params.load import read_yaml
from tests.completion.server import Handler, Server, completion
from tests.judge.conftest import CONVERSATIONS, QUESTIONS, write_conversations, write_questions
from tests.text import project

GOLD = {question: answer for _, question, answer in CONVERSATIONS} | {
    question: answer for question, answer, *_ in QUESTIONS
}


def make(root: Path, url: str, **changes: object) -> Path:
    """A project with two control questions of each kind, and two models' answers to two questions."""

    def change(params: dict) -> None:
        params["judge"]["model"]["kind"] = "openai"
        params["judge"]["model"]["openai"] |= {"url": url, "model": "m", "retries": 1, "retry_seconds": 0.01}
        params["judge"] |= {"control": 2, **changes}

    project.make(root, {"s": project.folder("s")}, change)
    write_conversations(root / "data/chat/test.jsonl")
    (root / "data/assets/smollm2").mkdir(parents=True)
    for name in ("piqa", "openbookqa", "commonsenseqa"):
        write_questions(root / f"data/assets/{name}/set.jsonl")
    asked = [
        ("a", "commands", "How do I delete a bucket?", GOLD["How do I delete a bucket?"]),
        ("b", "subjects", "What is Polo?", "A fruit."),
    ]
    for model, answers in (("chat", ("right", "wrong")), ("reference", ("wrong", "wrong"))):
        folder = root / "reports/evaluate" / model
        folder.mkdir(parents=True)
        write_answers(
            folder / "answers.jsonl",
            [
                Answered(name, kind, question, GOLD[question], answer if said == "right" else "Nothing.")
                for (name, kind, question, answer), said in zip(asked, answers, strict=True)
            ],
        )
    return root


def field(text: str, name: str) -> str:
    """What stands after `name: ` in a prompt."""
    return text.partition(f"{name}: ")[2].split("\n")[0]


def knowing(handler: Handler) -> None:
    """A judge that knows the right answers."""
    gold = GOLD[field(handler.said, "Question")]
    if "Answer A: " in handler.said:
        first, second = (field(handler.said, f"Answer {letter}") for letter in "AB")
        verdict = {"worse": "B" if first == gold or second == "Nothing." else "A"}
    else:
        verdict = {"grade": 5 if field(handler.said, "Answer to grade") == gold else 2}
    handler.give(completion(json.dumps(verdict)))


def guessing(handler: Handler) -> None:
    """A judge that says the same of everything."""
    handler.give(completion('{"worse": "B"}' if "Answer A: " in handler.said else '{"grade": 4}'))


def test_a_good_judge_is_relied_on(tmp_path: Path) -> None:
    with Server(knowing) as server:
        metrics = project.run(make(tmp_path, server.url, min_accuracy=0.6), "judge")
    control, verdicts = metrics["control"], metrics["verdicts"]
    assert control["questions"] == 6
    for what in ("grades", "pairs"):
        assert control[what]["accuracy"]["all"]["value"] == 1.0
        assert control[what]["reliable"]
    assert set(verdicts) == {"all", "commands", "subjects"}
    assert verdicts["commands"]["grade"]["chat"]["value"] == 5.0
    assert verdicts["all"]["grade"]["reference"]["value"] == 2.0
    assert verdicts["all"]["grade_difference"]["value"] == 1.5  # 5 - 2 and 2 - 2
    assert verdicts["commands"]["preferred"]["value"] == 1.0
    items = read_items(tmp_path / "reports/judge/items.jsonl")
    assert items["judge/chat/grade"]["a"].score == 5.0
    samples = json.loads((tmp_path / "reports/judge/samples.json").read_text())
    assert samples[0]["grades"] == {"chat": 5.0, "reference": 2.0}


def test_a_judge_that_guesses_is_shown_as_not_reliable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(guessing) as server:
        metrics = project.run(make(tmp_path, server.url), "judge")
    control = metrics["control"]
    assert control["pairs"]["accuracy"]["all"]["value"] == 0.5
    assert control["pairs"]["order_bias"]["value"] == 0.5
    assert not control["grades"]["reliable"]
    assert not control["pairs"]["reliable"]
    assert metrics["verdicts"]["all"]["grade"]["chat"]["value"] == 4.0  # shown all the same
    assert "its grades are not reliable" in capsys.readouterr().err


def test_a_run_that_broke_off_asks_only_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_REQUESTS", "1")

    def breaking(handler: Handler) -> None:
        if handler.number < 30:
            knowing(handler)
        else:
            handler.give({"error": "down"}, 500)

    with Server(breaking) as server:
        root = make(tmp_path, server.url)
        with pytest.raises(Exception, match="fails and fails"):
            project.run(root, "judge")
        assert not (root / "reports/judge").exists() or not list((root / "reports/judge").glob("*"))
        before = len(server.asked)
        server.script = knowing
        whole = project.run(root, "judge")
        prompts = [body["messages"][-1]["content"] for body in server.asked]
        assert prompts[before:]
        assert not set(prompts[:30]) & set(prompts[before:])
    with Server(knowing) as server:
        monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "other"))
        anew = project.run(make(tmp_path / "anew", server.url), "judge")
    assert {**whole, "judge": ""} == {**anew, "judge": ""}  # whose name holds the address


def test_a_judge_out_of_form_is_one_clear_message(tmp_path: Path) -> None:
    with (
        Server(lambda handler: handler.answer("As a language model, I cannot.")) as server,
        pytest.raises(OutOfForm, match="never answers in form"),
    ):
        project.run(make(tmp_path, server.url), "judge")


def test_the_budget_ends_it_and_what_was_judged_is_there(tmp_path: Path) -> None:
    budget = {"requests": 30, "tokens": None, "money": None, "price_in": 0, "price_out": 0}
    with Server(knowing) as server:
        root = make(tmp_path, server.url)
        params = read_yaml(root / "params.yaml")
        params["judge"]["model"]["budget"] = budget
        YAML().dump(params, root / "params.yaml")
        metrics = project.run(root, "judge")
        assert len(server.asked) <= 30
    assert metrics["stopped"] == "requests"
    assert metrics["control"]["grades"]["accuracy"]["all"]["value"] == 1.0


def test_without_answers_the_judge_is_measured_all_the_same(tmp_path: Path) -> None:
    with Server(knowing) as server:
        root = make(tmp_path, server.url)
        for model in ("chat", "reference"):
            (root / f"reports/evaluate/{model}/answers.jsonl").write_text("")
        metrics = project.run(root, "judge")
    assert metrics["verdicts"]["all"]["questions"] == 0
    assert metrics["verdicts"]["all"]["grade"]["chat"] == {"value": None, "stderr": None}
