from __future__ import annotations

import json
from pathlib import Path

from lib.text.documents import Document, write_documents
from tests.text import project

FIELDS = {"exam": {"context": None, "question": "ask", "choices": "options"}}
ITEM = {
    "ask": "Which of the many rivers of the old continent is the one that is longest of all",
    "options": "A. x\nB. y",
}
OTHER = {"ask": "Who wrote the tale of the mouse that learned to sing in the evening", "options": "A. he\nB. she"}
QUESTION, ANSWER = "How do I list the users of my account?", "aws iam list-users --max-items 10"


def make(root: Path, documents: list[tuple[str, str]], train: list[tuple[str, str]]) -> dict:
    asset = {"package": "exam==1", "sha256": "0" * 64, "members": ["*"], "licence": "MIT"}

    def change(params: dict) -> None:
        params["assets"]["exam"] = {"kind": "package", **asset}
        params["dedup"]["decontaminate"] |= {"sets": FIELDS, "ngram": 13, "min_words": 4}
        params["contamination"] = {"ngram": 8}

    project.make(root, {"s": project.folder("s")}, change)
    deps = root / "dvc.yaml"
    deps.write_text(deps.read_text().replace("- data/assets/mmlu", "- data/assets/exam"))
    (root / "data/assets/exam").mkdir(parents=True)
    (root / "data/assets/exam/test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (ITEM, OTHER)))
    for name in json.loads(json.dumps(project.read_yaml(root / "dvc.yaml")))["stages"]["contamination"]["deps"]:
        if name.startswith("data/assets/"):
            (root / name).mkdir(parents=True, exist_ok=True)
    write_documents(root / "data/mix/train", [Document(name, text, "u", "s", "MIT") for name, text in documents])
    (root / "data/chat").mkdir(parents=True)
    for split, pairs in (("train", train), ("test", [(QUESTION, ANSWER)])):
        with (root / f"data/chat/{split}.jsonl").open("w") as stream:
            for number, (question, answer) in enumerate(pairs):
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                row = {"id": f"c/{number}", "kind": "manual", "messages": messages}
                stream.write(json.dumps(row) + "\n")
    return project.run(root, "contamination")["words"]


def test_clean_training_shows_nothing(tmp_path: Path) -> None:
    found = make(tmp_path, [("s/1", "Nothing of the sort stands here.")], [("Hello, who are you?", "I am a model.")])
    assert {name: sets["exam/test.jsonl"] for name, sets in found.items() if name != "whole"} == {
        name: {"items": 2, "searched": 2, "found": 0, "documents": 0, "conversations": 0} for name in ("13", "8")
    }
    assert {figures["found"] for figures in found["whole"].values()} == {0}


def test_an_item_is_found_where_it_was_trained_on(tmp_path: Path) -> None:
    leaked = f"He asked: {ITEM['ask'].upper()}? Nobody knew."
    part = " ".join(OTHER["ask"].split()[:9])  # nine words of it: too few for the rule, enough for the shorter runs
    found = make(tmp_path, [("s/1", leaked), ("s/1", leaked), ("s/2", part)], [("Hello, my friend.", ITEM["ask"])])
    long, short = found["13"]["exam/test.jsonl"], found["8"]["exam/test.jsonl"]
    assert (long["found"], long["documents"], long["conversations"]) == (1, 1, 1)
    assert (short["found"], short["documents"], short["conversations"]) == (2, 2, 1)
    shown = json.loads((tmp_path / "reports/contamination/found.json").read_text())
    assert [(one["place"], one["text"]) for one in shown["13"]] == [("documents", "s/1"), ("conversations", "c/0#0")]


def test_of_held_out_tasks_the_whole_counts_and_not_a_phrase(tmp_path: Path) -> None:
    found = make(
        tmp_path,
        [("s/1", f"Type this:\n\n    {ANSWER}\n\nand wait.")],
        [("How do I list the users of my other account?", "aws iam list-users --max-items 20")],
    )["whole"]
    assert found["held_out/answers.jsonl"]["documents"] == 1
    assert found["held_out/answers.jsonl"]["conversations"] == 0
    assert found["held_out/questions.jsonl"]["found"] == 0
