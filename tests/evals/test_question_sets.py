from __future__ import annotations

import json
import socket

import pytest
import torch

from lib.evals.language_model import LanguageModel
from lib.evals.question_sets import measure_question_sets
from lib.pipeline.errors import SmeltError

PIQA = [
    ("cut", "a saw", "an apple tree", 0),
    ("dry", "water", "sun", 1),
    ("sit", "chair", "up", 0),
    ("go", "i", "on", 0),
]
OPENBOOK = [("sun is ", 1), ("ice is ", 0), ("fog ", 3), ("cat ", 2)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path / "validation.jsonl",
        [
            {"question": q, "options": f"A. {a}\nB. {b}", "answer": ("A. " + a, "B. " + b)[gold]}
            for q, a, b, gold in PIQA
        ],
    )
    options = ["A. hot", "B. cold", "C. wet x", "D. no"]
    write(
        tmp_path / "test.jsonl",
        [{"question": q, "options": "\n".join(options), "answer": options[gold]} for q, gold in OPENBOOK],
    )
    return tmp_path


def log_likelihood(lm: LanguageModel, context: str, answer: str) -> float:
    """Of the bytes of " answer" after `context`; both together are longer than the model's window."""
    ids = lm.tokenizer(f"{context} {answer}", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logs = torch.log_softmax(lm.model(torch.tensor([ids[:-1]])).logits[0].double(), -1)
    picked = [logs[position - 1, ids[position]].item() for position in range(1, len(ids))]
    return sum(picked[-len(answer) - 1 :])


def test_accuracy_is_that_of_own_log_likelihoods(lm, folder, monkeypatch):
    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    found = measure_question_sets(lm, folder, limit=4, seed=1)
    assert list(found) == ["openbookqa", "piqa"]
    questions = {
        "piqa": [(f"Question: {q}\nAnswer:", [a, b], gold) for q, a, b, gold in PIQA],
        "openbookqa": [(q.strip(), ["hot", "cold", "wet x", "no"], gold) for q, gold in OPENBOOK],
    }
    for name, rows in questions.items():
        assert found[name]["questions"] == 4
        for key, length in (("accuracy", lambda answer: 1), ("accuracy_normalised", len)):
            right = []
            for context, answers, gold in rows:
                scores = [log_likelihood(lm, context, answer) / length(answer) for answer in answers]
                right.append(scores.index(max(scores)) == gold)
            share = sum(right) / 4
            assert found[name][key]["value"] == pytest.approx(share), (name, key)
            assert found[name][key]["stderr"] == pytest.approx((share * (1 - share) / 3) ** 0.5, abs=1e-6)


def test_an_answer_that_is_no_option_is_named(lm, folder):
    write(folder / "test.jsonl", [{"question": "q", "options": "A. x\nB. y", "answer": "C. z"}])
    with pytest.raises(SmeltError, match=r"test\.jsonl, line 1: .*'C\. z'"):
        measure_question_sets(lm, folder, limit=4, seed=1)
