from __future__ import annotations

import pytest

from lib.params.sources import Thread
from lib.sources import turns
from lib.text.documents import Document

COLUMNS = Thread(id="id", parent="parent", role="role", content="text", rank="rank")

MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
]

SHAREGPT = [
    {"from": "system", "value": "S"},
    {"from": "human", "value": "U "},
    {"from": "gpt", "value": "A", "weight": 1},
]


def rows(*found: tuple[str, str | None, str, int | None]) -> list[turns.Row]:
    """Messages (id, parent, role, rank) whose text is their id."""
    return [
        turns.Row(
            Document(id_, "", "", "s", "MIT"), {"id": id_, "parent": parent, "role": role, "text": id_, "rank": rank}
        )
        for id_, parent, role, rank in found
    ]


def follow(found: list[turns.Row], columns: Thread = COLUMNS) -> tuple[list[str], dict[str, str]]:
    """The conversations as strings of ids, and the reasons of the other messages."""
    branches = list(turns.branches(found, columns))
    conversations = ["".join(message["content"] for message in one.messages) for one in branches if one.reason is None]
    return conversations, {one.row.place.id: one.reason for one in branches if one.reason is not None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (MESSAGES, None),
        (SHAREGPT, None),
        ([{"role": "prompter", "content": "U"}], "no_answer"),
        ([{"role": "user", "content": "U"}, {"role": "assistant", "content": " "}], "no_answer"),
        ([{"role": "narrator", "content": "U"}], "unknown_role"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content_is_no_text"),
        (["U", "A"], "no_messages"),
        ([], "no_messages"),
        (None, "no_messages"),
        ("text", "no_messages"),
    ],
)  # fmt: skip
def test_dialects(given: object, expected: str | None) -> None:
    found, reason = turns.messages(given)
    assert reason == expected
    if reason is None:
        assert found == MESSAGES
        assert turns.render(found) == "System: S\n\nUser: U\n\nAssistant: A"


def test_the_best_reply_is_the_one_of_the_lowest_rank_then_the_first() -> None:
    table = rows(
        ("a", None, "user", None),
        ("b", "a", "assistant", None),
        ("c", "a", "assistant", 2),
        ("d", "c", "user", None),
        ("e", "c", "user", None),
        ("f", "d", "assistant", 0),
    )
    assert follow(table) == (["acdf"], {"b": "not_the_best_reply", "e": "not_the_best_reply"})
    first = follow(table, COLUMNS.model_copy(update={"rank": None}))
    assert first == (["ab"], dict.fromkeys("cdef", "not_the_best_reply"))


def test_every_message_is_in_a_conversation_or_has_a_reason() -> None:
    table = rows(
        ("x", "gone", "assistant", None),  # the beginning of a file may be cut off
        ("a", None, "user", None),
        ("b", "a", "assistant", None),
        ("y", "gone", "assistant", None),
        ("z", "y", "user", None),
        ("c", None, "user", None),
        ("d", "d", "assistant", None),  # its own parent
        ("e", "f", "assistant", None),
        ("f", "e", "assistant", None),
    )
    conversations, reasons = follow(table)
    assert conversations == ["ab"]
    assert reasons["x"] == reasons["y"] == "parent_is_missing"
    assert reasons["c"] == "no_answer"
    assert len("".join(conversations)) + len(reasons) == len(table)
