"""Shares of the fine-tuning data: what was asked for is what comes, repeats are capped, nothing is lost uncounted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.text.chat_mix import MAX_TEXT, Group, plain_texts, select, share_out, shorten
from lib.text.conversations import Conversation
from lib.text.documents import Document, write_documents
from tests.text import project

NO_LIMITS: dict[str, int | None] = {"a": None, "b": None}


def conversation(number: int, kind: str = "a") -> Conversation:
    turns = [("user", f"Question {number}?"), ("assistant", "Yes.")]
    return Conversation(f"s/{number}", kind, [{"role": role, "content": text} for role, text in turns], "s")


def test_choice_is_limited_shuffled_and_stable() -> None:
    many = [conversation(number) for number in range(40)]
    everything = select(many, NO_LIMITS, seed=1).conversations
    assert sorted(everything, key=str) == sorted(many, key=str)
    assert everything != many
    assert select(reversed(many), NO_LIMITS, seed=1).conversations == everything
    assert select(many, NO_LIMITS, seed=2).conversations != everything
    assert select(many, {"a": 7}, seed=1).conversations == everything[:7]
    assert select(many, {"a": 0}, seed=1).conversations == []
    fewer = [found for found in many if found.id != "s/3"]
    assert select(fewer, NO_LIMITS, seed=1).conversations == [found for found in everything if found.id != "s/3"]


def test_found_is_usable_plus_left_out() -> None:
    odd = [conversation(1, "b")._replace(id=f"o/{n}", messages=[{"role": "user", "content": "?"}]) for n in range(3)]
    found = [*(conversation(number) for number in (*range(9), *range(4))), *odd, conversation(7, "b")]
    selection = select(found, {"a": 5, "b": None}, seed=1)
    metrics = selection.metrics()
    assert metrics["left_out"] == {"no_answer": {"b": 3}, "over_the_most": {"a": 3}, "repeated": {"a": 4, "b": 1}}
    assert (
        metrics["found"]
        == 17
        == len(selection.conversations) + sum(sum(kinds.values()) for kinds in metrics["left_out"].values())
    )
    assert metrics["usable"] == Counter(one.kind for one in selection.conversations) | {"b": metrics["usable"]["b"]}


def groups(shares: tuple[float, ...], epochs: tuple[int, ...], sizes: tuple[int, ...]) -> dict[str, Group]:
    """Groups of examples of 30 to 90 bytes, at 3 bytes a token and without messages."""
    chance = np.random.default_rng(1)
    return {
        name: Group(share, each, chance.integers(30, 91, size), np.zeros(size, int), bytes_per_token=3.0)
        for name, share, each, size in zip(("own", "instructions", "text"), shares, epochs, sizes, strict=True)
    }


@pytest.mark.parametrize("tokens", [1000, 5000, 20_000])
def test_shares_are_reached_to_an_example(tokens: int) -> None:
    found = groups((0.2, 0.3, 0.5), (4, 4, 1), (100, 200, 600))
    share_out(found, tokens)
    for group in found.values():
        assert group.requested == pytest.approx(group.share * tokens)
        assert 0 <= group.tokens - group.requested <= 30
        assert group.examples == sum(group.times(place) for place in range(len(group.text_bytes)))
    if tokens == 20_000:
        assert {found["own"].times(place) for place in range(100)} == {1, 2, 3} - {1 if found["own"].passes == 2 else 3}


def test_without_a_number_the_scarcest_group_is_used_up() -> None:
    found = groups((0.2, 0.3, 0.5), (2, 4, 1), (100, 2000, 6000))
    share_out(found, None)
    assert found["own"].examples == 200
    assert found["text"].tokens == pytest.approx(2.5 * found["own"].tokens, rel=0.01)
    assert [round(group.metrics(sum(g.tokens for g in found.values()))["share"], 2) for group in found.values()] == [
        0.2,
        0.3,
        0.5,
    ]


def test_a_group_that_is_too_small_is_named_with_what_would_do() -> None:
    found = groups((0.2, 0.3, 0.5), (2, 1, 1), (100, 10_000, 10_000))
    with pytest.raises(SmeltError) as caught:
        share_out(found, 100_000)
    message = str(caught.value)
    assert "own: a share of 0.2 asks for 20,000 tokens, and 2 epochs of its 100 examples have" in message
    assert "instructions" not in message
    epochs = int(message.split("chat.own.epochs to ")[1].split(",")[0])
    enough = groups((0.2, 0.3, 0.5), (epochs, 1, 1), (100, 10_000, 10_000))
    share_out(enough, 100_000)
    fewer = int(message.split("chat.tokens to ")[1].split(", or")[0].replace(",", ""))
    share_out(groups((0.2, 0.3, 0.5), (2, 1, 1), (100, 10_000, 10_000)), fewer)
    with pytest.raises(SmeltError):
        share_out(groups((0.2, 0.3, 0.5), (epochs - 1, 1, 1), (100, 10_000, 10_000)), 100_000)


def test_a_group_with_nothing_in_it_is_an_error_unless_its_share_is_zero() -> None:
    with pytest.raises(SmeltError, match=r"own: data/mix/train has no conversation of chat\.own\.sources"):
        share_out(groups((0.2, 0.3, 0.5), (1, 1, 1), (0, 100, 100)), None)
    found = groups((0.0, 0.5, 0.5), (1, 1, 1), (0, 100, 100))
    share_out(found, 1000)
    assert found["own"].examples == 0


def test_long_text_ends_with_a_paragraph_a_line_or_a_word() -> None:
    assert shorten("short") == "short"
    paragraph = "word " * 300
    assert shorten("\n\n".join([paragraph.strip()] * 9)) == "\n\n".join([paragraph.strip()] * 3)
    assert shorten("word " * 3000).endswith("word")
    assert len(shorten("x" * 10_000)) == MAX_TEXT


def test_conversations_are_no_plain_text() -> None:
    kept = json.dumps([{"messages": []}])
    documents = [Document("a", "A", "u", "s", "MIT"), Document("b", "B", "u", "s", "MIT", kept)]
    assert list(plain_texts(documents)) == [("a", "A")]


# ----------------------------------------------------------------------------------------------------------------------
# The stage


def corpus(number: int) -> list[Document]:
    """Manual pages (own), articles and conversations of a hub (instructions)."""
    found = []
    for n in range(number):
        page = f"**To make thing {n}**\n\nText::\n\n    aws make thing-{n} --size {n}\n\nSee the *AWS Make Guide*.\n"
        found.append(Document(f"own/{n}", page, "u", "own", "MIT"))
        title = json.dumps([{"title": f"Ore {n}"}])
        found.append(
            Document(f"wiki/{n}", f"Ore {n}\n\nOre {n} is a mineral of the group {n}.", "u", "wiki", "MIT", title)
        )
        turns = [{"role": ("user", "assistant")[at % 2], "content": f"{n} and {at}?"} for at in range(4)]
        messages = json.dumps([{"messages": turns}])
        found.append(Document(f"hub/{n}", f"User: {n}", "u", "hub", "MIT", messages))
    return found


def make(root: Path, **changes: Any) -> Path:
    def change(params: dict) -> None:
        params["chat"] |= {"tokens": 3000, **changes}
        for name, share, epochs in (("own", 0.2, 4), ("instructions", 0.4, 4), ("text", 0.4, 1)):
            params["chat"][name] |= {"share": share, "epochs": epochs}

    project.make(root, {name: project.folder(name) for name in ("own", "wiki", "hub")}, change)
    for split, size in (("train", 60), ("val", 4), ("test", 8)):
        documents = corpus(size)
        if split != "train":
            documents = [one._replace(id=f"{one.id}-{split}") for one in documents]
        write_documents(root / "data/mix" / split, documents)
    return root


def rows(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "data/chat" / f"{name}.jsonl").read_text().splitlines()]


def test_the_stage_writes_what_it_counts(tmp_path: Path) -> None:
    root = make(tmp_path)
    metrics = project.run(root, "chat")
    train, text = rows(root, "train"), rows(root, "text")
    assert {(row["kind"], row["group"]) for row in train} == {
        ("manual", "own"), ("encyclopedia", "instructions"), ("messages", "instructions"),
    }  # fmt: skip
    number = Counter(row["group"] for row in [*train, *text])
    assert {name: group["examples"] for name, group in metrics["groups"].items()} == number
    for group in metrics["groups"].values():
        assert group["share"] == pytest.approx(group["requested_share"], abs=0.02)
    assert [row["group"] for row in train] != sorted(row["group"] for row in train)  # shuffled
    assert {row["id"].partition("/")[0] for row in text} == {"own", "wiki"}
    for split, size in (("val", 4), ("test", 8)):
        assert metrics["splits"][split] == {
            "found": 3 * size, "usable": {"encyclopedia": size, "manual": size, "messages": size}, "left_out": {},
        }  # fmt: skip
        assert len(rows(root, split)) == 3 * size
    again = make(tmp_path / "again")
    project.run(again, "chat")
    assert rows(again, "train") == train
    assert rows(again, "text") == text


def test_repeats_are_capped(tmp_path: Path) -> None:
    root = make(tmp_path, tokens=20_000)
    with pytest.raises(SmeltError, match=r"text: a share of 0\.4 asks for 8,000 tokens, and 1 epoch of its 120"):
        project.run(root, "chat")
    assert not (root / "data/chat").exists()
    root = make(tmp_path / "null", tokens=None)
    project.run(root, "chat")
    number = Counter(row["id"] for row in rows(root, "train"))
    assert max(number.values()) <= 4


def test_data_without_conversations_is_one_error(tmp_path: Path) -> None:
    root = make(tmp_path)
    for split in ("train", "val", "test"):
        write_documents(root / "data/mix" / split, [Document(f"own/{split}", "Only text.", "u", "own", "MIT")])
    with pytest.raises(SmeltError) as caught:
        project.run(root, "chat")
    assert "own: data/mix/train has no conversation" in str(caught.value)
    assert "instructions: data/mix/train has no conversation" in str(caught.value)


def test_what_a_teacher_wrote_is_own_and_follows_the_split_of_its_document(tmp_path: Path) -> None:
    root = make(tmp_path)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "They."}]
    lines = [
        json.dumps({"id": f"synthetic/{n}", "kind": "synthetic_qa", "document": f"own/{n}", "messages": turns})
        for n in range(300)
    ]
    (root / "data/synthetic/qa.jsonl").write_text("\n".join(lines))
    metrics = project.run(root, "chat")["splits"]
    number = {split: metrics[split]["usable"]["synthetic_qa"] for split in metrics}
    assert sum(number.values()) == 300
    assert 0 < number["val"] < number["test"] < number["train"]
    own = {row["id"].partition("/")[0] for row in rows(root, "train") if row["group"] == "own"}
    assert own == {"own", "synthetic"}
