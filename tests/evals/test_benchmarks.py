from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch

from lib.evals.benchmarks import TASKS, Benchmarks, local_tasks
from lib.evals.commands import token_f1
from lib.evals.language_model import LanguageModel
from lib.params.results import BenchmarkTask
from lib.pipeline.errors import SmeltError

PIQA = [
    ("cut", "a saw", "an apple tree", 0),
    ("dry", "water", "sun", 1),
    ("sit", "chair", "up", 0),
    ("go", "i", "on", 0),
]
FOUR = [("sun is ", 1), ("ice is ", 0), ("fog ", 3), ("cat ", 2)]
OPTIONS = ["hot", "cold", "wet x", "no"]


def choice(question, options, gold, **more):
    lines = [f"{letter}. {option}" for letter, option in zip("ABCDE", options, strict=False)]
    return {"question": question, "options": "\n".join(lines), "answer": lines[gold], **more}


FILES = {
    "piqa/validation.jsonl": [choice(q, (a, b), gold) for q, a, b, gold in PIQA],
    "openbookqa/test.jsonl": [choice(q, OPTIONS, gold) for q, gold in FOUR],
    "commonsenseqa/validation.jsonl": [choice(q, [*OPTIONS, "up"], gold) for q, gold in FOUR],
    "socialiqa/test.jsonl": [choice(q, OPTIONS[:3], gold % 3, passage="A b.") for q, gold in FOUR],
    "mmlu/test.jsonl": [choice(q, OPTIONS, gold) for q, gold in FOUR],
    "boolq/dev.jsonl": [{"passage": "P.", "question": q, "answer": str(gold > 1)} for q, gold in FOUR],
    "truthfulqa/combined.jsonl": [{"question": q, "answer": ["The sun, I say!", "Moon"]} for q, _ in FOUR],
}


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def assets(tmp_path):
    for name, rows in FILES.items():
        write(tmp_path / name, rows)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def benchmarks(assets, *names, few_shot=0, limit=4, seed=1):
    tasks = {name: BenchmarkTask(few_shot=few_shot, limit=None) for name in names}
    return Benchmarks(tasks, assets, limit=limit, batch_rows=3, seed=seed)


def log_likelihood(lm: LanguageModel, context: str, answer: str) -> float:
    """Of the bytes of " answer" after `context`; both together are longer than the model's window."""
    ids = lm.tokenizer(f"{context} {answer}", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logs = torch.log_softmax(lm.model(torch.tensor([ids[:-1]])).logits[0].double(), -1)
    picked = [logs[position - 1, ids[position]].item() for position in range(1, len(ids))]
    return sum(picked[-len(answer) - 1 :])


LETTERED = "{}\nA. hot\nB. cold\nC. wet x\nD. no\nAnswer:"
QUESTIONS = {
    "piqa": [(f"Question: {q}\nAnswer:", [a, b], gold) for q, a, b, gold in PIQA],
    "openbookqa": [(q.strip(), OPTIONS, gold) for q, gold in FOUR],
    "commonsenseqa": [(f"Question: {q.strip()}\nAnswer:", [*OPTIONS, "up"], gold) for q, gold in FOUR],
    "socialiqa": [(f"Q: A b. {q.strip()}\nA:", OPTIONS[:3], gold % 3) for q, gold in FOUR],
    "mmlu_letter": [(LETTERED.format(q.strip()), list("ABCD"), gold) for q, gold in FOUR],
    "mmlu_cloze": [(f"Question: {q.strip()}\nAnswer:", OPTIONS, gold) for q, gold in FOUR],
    "boolq": [(f"P.\nQuestion: {q}?\nAnswer:", ["no", "yes"], gold > 1) for q, gold in FOUR],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_accuracy_is_that_of_own_log_likelihoods(lm, assets, no_network, name):
    found = benchmarks(assets, name).measure(lm, name)
    assert found["metrics"]["questions"] == 4
    keys = {"accuracy": lambda answer: 1, "accuracy_normalised": len}
    assert "accuracy" in found["metrics"]
    for key in keys.keys() & found["metrics"].keys():
        right = []
        for context, answers, gold in QUESTIONS[name]:
            scores = [log_likelihood(lm, context, answer) / keys[key](answer) for answer in answers]
            right.append(float(scores.index(max(scores)) == gold))
        share = sum(right) / 4
        assert found["metrics"][key]["value"] == pytest.approx(share), key
        assert found["metrics"][key]["stderr"] == pytest.approx((share * (1 - share) / 3) ** 0.5, abs=1e-6)
        scored = {item.id.partition("#")[2]: item.score for item in found["items"] if item.task == f"{name}/{key}"}
        assert scored == {str(line): score for line, score in enumerate(right, start=1)}
    shown = found["samples"][0]
    context, answers, gold = QUESTIONS[name][0]
    assert (shown["prompt"], shown["expected"]) == (context, answers[gold])
    assert shown["answer"] in answers


def test_every_task_of_ours_is_tested():
    assert local_tasks().keys() == {*QUESTIONS, "truthfulqa"}


def test_truthfulqa_is_the_overlap_with_the_nearest_answer(lm, assets, no_network):
    found = benchmarks(assets, "truthfulqa").measure(lm, "truthfulqa")
    said = [sample["answer"] for sample in found["samples"]]
    plain = [" ".join("".join(c for c in text.lower() if c.isalnum() or c.isspace()).split()) for text in said]
    expected = [max(token_f1(text, "sun i say"), token_f1(text, "moon")) for text in plain]
    assert sorted(item.score for item in found["items"]) == pytest.approx(sorted(expected))
    assert found["metrics"]["token_f1"]["value"] == pytest.approx(sum(expected) / 4)


def test_questions_are_drawn_by_the_seed_and_a_larger_limit_adds_to_them(lm, assets):
    rows = [choice(f"question {number}", OPTIONS, number % 4) for number in range(20)]
    write(assets / "openbookqa/test.jsonl", rows)
    drawn = {}
    for limit, seed in ((3, 1), (6, 1), (6, 2)):
        items = benchmarks(assets, "openbookqa", limit=limit, seed=seed).measure(lm, "openbookqa")["items"]
        drawn[limit, seed] = {item.id for item in items}
    assert len(drawn[3, 1]) == 3
    assert len(drawn[6, 1]) == 6
    assert drawn[3, 1] < drawn[6, 1] != drawn[6, 2]


def test_examples_come_before_the_question_and_are_never_the_question(lm, assets):
    samples = benchmarks(assets, "piqa", few_shot=2).measure(lm, "piqa")["samples"]
    for sample in samples:
        *examples, question = sample["prompt"].split("Question: ")[1:]
        assert len(examples) == 2
        solved = {f"{q}\nAnswer: {(a, b)[gold]}" for q, a, b, gold in PIQA}
        assert {example.strip() for example in examples} <= solved
        assert not any(example.startswith(question.partition("\n")[0] + "\n") for example in examples)


def test_choices_of_several_lines_and_odd_answers_are_read(lm, assets):
    options = "\nA. x = 1\nA. is code\nC. so is this\nB. y\n z\nC. sail boat?"
    write(assets / "mmlu/test.jsonl", [{"question": "q", "options": options, "answer": "C. sail boat"}] * 2)
    found = benchmarks(assets, "mmlu_cloze").measure(lm, "mmlu_cloze")
    assert {sample["expected"] for sample in found["samples"]} == {"sail boat?"}


@pytest.mark.parametrize(
    ("task", "file", "row", "message"),
    [
        (
            "piqa",
            "piqa/validation.jsonl",
            {"question": "q", "answer": "A. x"},
            r"line 1: no column options \(there are",
        ),
        ("socialiqa", "socialiqa/test.jsonl", choice("q", "xyz", 0), r"test\.jsonl, line 1: no column passage"),
        ("boolq", "boolq/dev.jsonl", {"passage": "p", "question": "q"}, r"dev\.jsonl, line 1: no column answer"),
        ("truthfulqa", "truthfulqa/combined.jsonl", {"answer": []}, r"combined\.jsonl, line 1: no column question"),
        ("openbookqa", "openbookqa/test.jsonl", ["no object"], r"line 1: no column question, options, answer"),
        ("openbookqa", "openbookqa/test.jsonl", choice("q", "xy", 0) | {"answer": "C. z"}, r"line 1: .*'C\. z'"),
        ("openbookqa", "openbookqa/test.jsonl", choice("q", "xy", 0) | {"options": "x"}, r"line 1: .*'A\. x'"),
        ("boolq", "boolq/dev.jsonl", {"passage": "p", "question": "q", "answer": "maybe"}, r"line 1: .*'maybe'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_before_anything_is_measured(assets, task, file, row, message):
    write(assets / file, [row])
    with pytest.raises(SmeltError, match=message):
        benchmarks(assets, task)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SmeltError, match=r"piqa/validation\.jsonl does not exist; run `dvc repro assets@piqa`"):
        benchmarks(tmp_path, "piqa")


def test_names_are_those_of_ours_or_of_the_harness(lm, assets, no_network, monkeypatch, tmp_path_factory):
    tasks = shutil.copytree(TASKS, tmp_path_factory.mktemp("tasks") / "tasks")
    (tasks / "groups").mkdir()
    (tasks / "groups" / "common.yaml").write_text("group: common\ntask: [piqa, openbookqa]\n")
    monkeypatch.setattr("lib.evals.benchmarks.TASKS", tasks)
    with pytest.raises(SmeltError, match=r"no such task: piqqa\. On local files there are boolq, commonsenseqa"):
        benchmarks(assets, "piqa", "piqqa")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SmeltError, match="the questions of arc_easy come from a hub, and that did not answer"):
        benchmarks(assets, "arc_easy")

    # A group, as those of the harness are: the mean over all of its questions.
    found = benchmarks(assets, "common", limit=3).measure(lm, "common")
    scores = [item.score for item in found["items"] if item.task == "common/accuracy"]
    assert len(scores) == found["metrics"]["questions"] == 6
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(sum(scores) / 6)
    assert len({item.id for item in found["items"]}) == 6
