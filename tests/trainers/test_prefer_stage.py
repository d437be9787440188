"""`preferences` and `prefer` as stages, on a small project with a small random chat model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from lib.evals.generation import generate
from lib.evals.language_model import load_language_model
from lib.evals.own_answers import is_right
from lib.model import huggingface
from lib.model.config import ModelConfig
from lib.model.decoder import Decoder
from lib.params.load import read_yaml
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.preset import overlay
from lib.tokenizer.chat_template import END_OF_TURN
from lib.tokenizer.train import save_tokenizer, train_tokenizer
from tests.text import project
from tests.tokenizer.conftest import VOCAB_SIZE, sentences

CONFIG = ModelConfig(
    vocab_size=VOCAB_SIZE, context_length=64, layers=1, width=32, heads=2, kv_heads=1, feed_forward=48,
    rope_theta=10000.0, norm_eps=1e-6, qk_norm=True, tie_embeddings=False,
)  # fmt: skip
TINY = {
    "preferences": {"val": 0.2},
    "prefer": {"rank": 4, "alpha": 8, "epochs": 3, "learning_rate": 0.01, "validate_every": 5, "checkpoint_every": 5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(iter(sentences()), VOCAB_SIZE), path)
    return path


def make(root: Path, tokenizer: Path, **preferences: Any) -> Path:
    """A project with a chat model, one task held out and no other."""

    def change(params: dict[str, Any]) -> None:
        overlay(params, TINY)
        overlay(params, {"preferences": preferences})

    project.make(root, {"s": project.folder("s")}, change)
    model = Decoder(CONFIG)
    model.initialise(1)
    with torch.no_grad():
        for weight in model.parameters():  # what begins at zero says the same of every token
            if not weight.any():
                weight.normal_(std=0.1)
    huggingface.save(model, tokenizer, root / "models/sft")
    huggingface.copy_tokenizer(tokenizer, root / "models/sft", end=END_OF_TURN)
    (root / "data/pairs").mkdir(parents=True)
    write(root / "data/chat/test.jsonl", [task("a task held out", "x y")])
    return root


def task(question: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": question, "kind": "manual", "messages": turns}


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{number} in?", "chosen": "in 1800.", "rejected": f"{number}"} for number in range(count)]


def test_without_pairs_the_model_is_passed_on_without_a_copy(tmp_path: Path, folder: Path) -> None:
    root = make(tmp_path, folder)
    assert project.run(root, "preferences") == {"from": None, "rows": 0, "train": 0, "val": 0, "rejected": {}}
    assert project.run(root, "prefer") == {"pairs": 0}
    assert hash_path(root / "models/chat") == hash_path(root / "models/sft")
    weights = [root / "models" / name / "model.safetensors" for name in ("sft", "chat")]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino
    assert read(root / "data/preferences/train.jsonl") == []
    # Made again, neither is written into the other.
    project.run(root, "prefer")
    assert hash_path(root / "models/chat") == hash_path(root / "models/sft")


def test_pairs_of_files_are_learnt(tmp_path: Path, folder: Path) -> None:
    root = make(tmp_path, folder, **{"from": "files"})
    rows = made(60)
    write(root / "data/pairs/a.jsonl", rows[:20])
    pq.write_table(pa.Table.from_pylist(rows[20:40]), root / "data/pairs/b.parquet")
    (root / "data/pairs/deep").mkdir()
    lines = [f"{row['prompt']},{row['chosen']},{row['rejected']}" for row in rows[40:]]
    (root / "data/pairs/deep/c.csv").write_text("\n".join(["prompt,chosen,rejected", *lines]) + "\n")
    counts = project.run(root, "preferences")
    assert counts["rows"] == counts["train"] + counts["val"] == 60
    assert not counts["rejected"]

    before = hash_path(root / "models/sft")
    metrics = project.run(root, "prefer")
    assert metrics["pairs"] == counts["train"]
    assert metrics["val_accuracy"] > 0.9
    assert metrics["val_margin"] > 0
    header, *rows = (root / "reports/prefer/val.csv").read_text().splitlines()
    assert header == "step,tokens,loss,accuracy,margin,chosen,rejected"
    assert float(rows[-1].split(",")[2]) < 0.6
    # It is a model of its own, in form like the one before.
    sft, chat = root / "models/sft", root / "models/chat"
    assert hash_path(sft) == before
    assert {file.name for file in chat.iterdir()} == {file.name for file in sft.iterdir()}
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (chat / name).read_bytes() == (sft / name).read_bytes()
    tokens = torch.tensor([Tokenizer.from_file(str(chat / "tokenizer.json")).encode("in 1800.").ids])
    logits = [AutoModelForCausalLM.from_pretrained(path)(tokens).logits for path in (sft, chat)]
    assert (logits[0] - logits[1]).abs().max() > 0.01


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_other_methods_learn_them_too(tmp_path: Path, folder: Path, method: str) -> None:
    root = make(tmp_path, folder, **{"from": "files"})
    params = read_yaml(root / "params.yaml")
    params["prefer"] |= {"method": method, "optimizer": "adamw", "patience": 3}
    YAML().dump(params, root / "params.yaml")
    write(root / "data/pairs/a.jsonl", made(60))
    project.run(root, "preferences")
    metrics = project.run(root, "prefer")
    assert metrics["val_accuracy"] > 0.9
    assert (
        metrics["trainable_parameters"] == sum(weight.numel() for weight in Decoder(CONFIG).parameters())
        or method == "qlora"
    )
    assert AutoModelForCausalLM.from_pretrained(root / "models/chat").config.hidden_size == CONFIG.width


def test_what_is_no_pair_is_counted_with_its_reason(tmp_path: Path, folder: Path) -> None:
    root = make(tmp_path, folder, **{"from": "files", "limit": 20})
    odd = [
        {"prompt": "1 in?", "chosen": "in 1800.", "rejected": "1"},  # again
        {"prompt": "2 in?", "chosen": "same", "rejected": "same "},
        {"prompt": "3 in?", "chosen": "in 1800.", "rejected": ""},
        {"prompt": " A task, held out!", "chosen": "x y", "rejected": "x"},
    ]
    write(root / "data/pairs/pairs.jsonl", [*made(30), *odd])
    with open(root / "data/pairs/pairs.jsonl", "a") as stream:
        stream.write("{broken\n[1]\n")
    counts = project.run(root, "preferences")
    assert counts["rejected"] == {
        "broken_json": 1,
        "duplicate": 1,
        "empty_answer": 1,
        "held_out": 1,
        "not_an_object": 1,
        "over_the_limit": 10,
        "same_answers": 1,
    }
    assert counts["rows"] == 36 == counts["train"] + counts["val"] + sum(counts["rejected"].values())
    rejects = read(root / "data/preferences/rejects.jsonl")
    assert {"file": "pairs.jsonl", "row": 32, "reason": "same_answers"} in rejects
    assert len(rejects) == 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (None, "", "data/pairs has none"),
        ("a.jsonl", '{"prompt": "x", "chosen": "y"}\n', r"a\.jsonl has no column 'rejected'; it has: prompt, chosen"),
        ("a.csv", "prompt,answer\nx,y\n", "a.csv has no column 'chosen' and no column 'rejected'"),
        ("a.parquet", "PAR1", r"a\.parquet cannot be read"),
        ("a.docx", "x", r"a\.docx is none of jsonl, json, csv, tsv and parquet"),
        (
            "a.jsonl",
            '{"prompt": "x", "chosen": "y", "rejected": "y"}\n',
            "0 pairs to train on and 0 to validate with.* Rejected: same_answers: 1",
        ),
    ],
)
def test_files_without_pairs_are_one_clear_message(
    tmp_path: Path, folder: Path, name: str | None, content: str, words: str
) -> None:
    root = make(tmp_path, folder, **{"from": "files"})
    if name:
        (root / "data/pairs" / name).write_text(content)
    with pytest.raises(SmeltError, match=words):
        project.run(root, "preferences")
    assert not (root / "data/preferences").exists()


def test_pairs_too_long_for_the_model_are_one_clear_message(tmp_path: Path, folder: Path) -> None:
    root = make(tmp_path, folder, **{"from": "files"})
    write(root / "data/pairs/a.jsonl", [row | {"chosen": "in 18 " * 60} for row in made(20)])
    counts = project.run(root, "preferences")
    with pytest.raises(
        SmeltError, match=f"that fit into 64 tokens.*{counts['train']} and {counts['val']} that are too"
    ):
        project.run(root, "prefer")
    assert not (root / "models/chat").exists()


def test_the_model_s_own_wrong_answers_are_the_worse_ones(tmp_path: Path, folder: Path) -> None:
    tasks = [task(f"{number} in?", f"in {number} now") for number in range(20)]
    root = make(tmp_path, folder, **{"from": "answers", "answers": {"tasks": 20, "max_new_tokens": 8}})
    model = load_language_model(root / "models/sft", torch.device("cpu"))
    answers = generate(model, [each["messages"][:1] for each in tasks], 8, lambda items, total, unit: items)
    tasks[3]["messages"][1]["content"] = answers[3]  # which makes it right
    write(root / "data/chat/train.jsonl", [*tasks, task("a task too many", "x y") | {"kind": "encyclopedia"}])
    counts = project.run(root, "preferences")
    assert counts["rejected"] == {"right_already": 1}
    assert counts["rows"] == 20
    pairs = [row for side in ("train", "val") for row in read(root / f"data/preferences/{side}.jsonl")]
    expected = {each["messages"][0]["content"]: answer for each, answer in zip(tasks, answers, strict=True)}
    assert len(pairs) == 19
    for row in pairs:
        asked = row["prompt"][0]["content"]
        assert row["chosen"][0]["content"] == f"in {asked.split()[0]} now"
        assert row["rejected"][0]["content"] == expected[asked]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("aws s3 ls", True),
        ("aws  s3 ls\n", True),
        ("Use `aws s3 ls` for that.", True),
        ("```\naws s3 ls\n```", True),
        ("aws s3 ls --recursive", False),
        ("aws s3", False),
        ("", False),
    ],
)
def test_a_right_answer(answer: str, right: bool) -> None:
    assert is_right(answer, "aws s3 ls") is right
