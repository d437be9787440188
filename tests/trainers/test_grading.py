"""Samples graded while training: a judge behind a real server, well, failing and absent; and the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.params.load import read_yaml
from lib.params.training import Samples
from lib.pipeline.errors import SmeltError
from lib.trainers.grading import Grader
from lib.trainers.text import Sampler
from tests.completion.server import Handler, Server, completion
from tests.tokenizer.conftest import folder, tokenizer  # noqa: F401
from tests.trainers.test_loop import same, trainer, weights

ROOT = Path(__file__).parents[2]


def project(root: Path, url: str) -> Path:
    """A folder with params.yaml whose judge is at `url`."""
    params = read_yaml(ROOT / "params.yaml")
    params["judge"]["model"]["kind"] = "openai"
    params["judge"]["model"]["openai"] |= {"url": url, "model": "m", "retries": 1, "retry_seconds": 0.01}
    root.mkdir(exist_ok=True)
    YAML().dump(params, root / "params.yaml")
    return root


def train(scratch: Path, tokenizer_folder: Path, root: Path | None = None, steps: int = 9):
    """Train with two samples every third step, whose prompts are questions in few tokens."""
    run = trainer(scratch, steps=steps)
    samples = Samples(every=3, tokens=2, prompts=["Rain in", "One"])
    sampler = Sampler(tokenizer_folder, samples, 16, turns=lambda prompt: [len(prompt)])
    object.__setattr__(run._task, "sampler", sampler)
    run._run.root = root
    run.fit()
    return run


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the repository of the test is elsewhere
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "responses"))


def grade(handler: Handler) -> None:
    handler.give(completion(json.dumps({"grade": 2 if "Rain" in handler.said else 5})))


def test_every_sample_is_graded_and_nothing_else_changes(tmp_path, folder, monkeypatch):  # noqa: F811
    monkeypatch.delenv("SMELT_JUDGE", raising=False)
    plain = train(tmp_path / "plain", folder)
    assert "sample_grades" not in plain._run.observed
    monkeypatch.setenv("SMELT_JUDGE", "1")
    with Server(grade) as server:
        judged = train(tmp_path / "judged", folder, project(tmp_path / "root", server.url))
    assert judged._run.observed["sample_grades"] == {"3": 3.5, "6": 3.5, "9": 3.5}
    assert "step 6: the judge grades the samples 3.50 of 5" in judged._run.said
    assert all(body["messages"][-1]["content"].startswith("Grade an answer") for body in server.asked)
    assert len(server.asked) == len({body["messages"][-1]["content"] for body in server.asked})  # others were cached
    assert same(weights(plain), weights(judged))
    assert plain.history == judged.history


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (lambda handler: handler.give({"error": "no"}, 500), "fails and fails"),
        (lambda handler: handler.give({"error": "no"}, 401), "refuses no key"),
        (None, "cannot be reached"),
    ],
)
def test_a_judge_that_is_down_is_said_once_and_training_goes_on(tmp_path, folder, monkeypatch, script, says):  # noqa: F811
    monkeypatch.setenv("SMELT_JUDGE", "1")
    if script is None:
        run = train(tmp_path / "s", folder, project(tmp_path / "root", "http://127.0.0.1:9/v1"))
    else:
        with Server(script) as server:
            run = train(tmp_path / "s", folder, project(tmp_path / "root", server.url))
    lines = [line for line in run._run.said if "not graded any more" in line]
    assert len(lines) == 1
    assert says in lines[0]
    assert run.step == 9
    assert len(run.history.samples) == 6


def test_a_judge_whose_params_are_wrong_stops_no_training(tmp_path, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SMELT_JUDGE", "1")
    root = project(tmp_path / "root", "http://127.0.0.1:9/v1")
    (root / "params.yaml").write_text("judge: {}\n")
    run = train(tmp_path / "s", folder, root)
    assert sum("not graded any more: params.yaml has" in line for line in run._run.said) == 1
    assert run.step == 9


def test_a_wrong_setting_is_refused(tmp_path, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SMELT_JUDGE", "yes")
    with pytest.raises(SmeltError, match="SMELT_JUDGE is 'yes'"):
        train(tmp_path / "s", folder, tmp_path)


def test_a_beginning_is_graded_as_a_text(tmp_path, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SMELT_JUDGE", "1")
    with Server(grade) as server:
        run = trainer(tmp_path / "s")._run
        run.root = project(tmp_path / "root", server.url)
        grader = Grader(run, lambda step, mean: None)
        grader.send(3, [{"prompt": "Rain in", "text": " spring"}], asks=False)
        grader.close()
    assert run.observed["sample_grades"] == {"3": 2.0}
    assert server.asked[0]["messages"][0]["content"].startswith("Grade a text that a small language model wrote")
