"""What a judge is asked, and a folder of its own for what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

QUESTIONS = [
    ("What is the capital of France?", "Paris", "A. Rome\nB. Paris", "B. Paris"),
    ("What do bees make?", "honey", "A. honey\nB. silk", "A. honey"),
]
CONVERSATIONS = [
    ("manual", "How do I delete a bucket?", "aws s3api delete-bucket --bucket mine --region us-east-1"),
    ("manual", "Which command lists my users?", "aws iam list-users --max-items 10 --output json"),
    ("encyclopedia", "What is Mount Etna?", "Mount Etna is an active volcano on the east coast of Sicily, in Italy."),
    ("encyclopedia", "What is Polo?", "Polo is a ball game played on horseback, and one of the oldest team sports."),
    ("yes_no", "Is water wet?", "Yes."),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "responses"))


def write_conversations(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"d/{number}",
            "kind": kind,
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        }
        for number, (kind, question, answer) in enumerate(CONVERSATIONS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_questions(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": question, "options": options, "answer": answer} for question, _, options, answer in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
