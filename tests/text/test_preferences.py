"""Pairs from the shapes that datasets have, and what is no pair."""

from __future__ import annotations

from typing import Any

import pytest

from lib.text.preferences import Preferred, missing_columns, pair, question, split

USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "So."), ("assistant", "No."))
)
SYSTEM = {"role": "system", "content": "Be brief."}


def sharegpt(*messages: dict[str, str]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [USER], "chosen": "So.", "rejected": "No."}, [USER]),
        ({"prompt": "Why?", "chosen": "So.", "rejected": " No.\n"}, [USER]),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, [USER]),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER]),
        ({"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score": 3}, [USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, USER]),
        ({"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."}, [SYSTEM, USER]),
        ({"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}, [USER]),
        ({"system": "Be brief.", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, [SYSTEM, USER]),
        (
            {"conversations": sharegpt(SYSTEM, USER), "chosen": sharegpt(GOOD)[0], "rejected": sharegpt(BAD)[0]},
            [SYSTEM, USER],
        ),
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            [USER],
        ),
        (
            {
                "chosen": "\n\nHuman: Well\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: So.",
                "rejected": "\n\nHuman: Well\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: No.",
            },
            [{"role": "user", "content": "Well"}, {"role": "assistant", "content": "Yes?"}, USER],
        ),
    ],
)
def test_every_shape_gives_the_same_pair(row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    found = pair(row)
    assert found == Preferred(prompt, "So.", "No.")
    assert found.to_row() == {"prompt": prompt, "chosen": [GOOD], "rejected": [BAD]}
    assert pair(found.to_row()) == found


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "So. \n"}, "same_answers"),
        ({"prompt": "Why?", "chosen": "So  much.", "rejected": "So\nmuch."}, "same_answers"),
        ({"prompt": "Why?", "chosen": " ", "rejected": "No."}, "empty_answer"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": None}, "no_answer"),
        ({"prompt": "Why?", "chosen": [USER], "rejected": [BAD]}, "no_answer"),
        ({"prompt": "", "chosen": "So.", "rejected": "No."}, "no_prompt"),
        ({"chosen": "So.", "rejected": "No."}, "no_prompt"),
        ({"prompt": [USER, GOOD], "chosen": "So.", "rejected": "No."}, "no_prompt"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "other_prompts"),
        ({"prompt": "Why?", "chosen": 3, "rejected": "No."}, "not_text_or_messages"),
        ({"prompt": [{"role": "tool", "content": "x"}], "chosen": "So.", "rejected": "No."}, "not_text_or_messages"),
        ({"prompt": ["Why?"], "chosen": "So.", "rejected": "No."}, "not_text_or_messages"),
    ],
)
def test_what_is_no_pair_has_a_reason(row: dict[str, Any], reason: str) -> None:
    assert pair(row) == Preferred([], "", "", reason)


def test_a_missing_column_is_named() -> None:
    assert missing_columns(["prompt", "chosen"]) == "no column 'rejected'"
    assert missing_columns(["answer"]) == "no column 'chosen' and no column 'rejected'"
    assert missing_columns(["chosen", "rejected", "x"]) is None


def test_one_prompt_is_on_one_side_and_a_pair_more_moves_no_other() -> None:
    def made(count: int) -> list[Preferred]:
        prompts = [[{"role": "user", "content": f"{number // 3}?"}] for number in range(count)]
        return [Preferred(prompt, f"yes {number}", f"no {number}") for number, prompt in enumerate(prompts)]

    sides = split(made(300), None, 0.2, seed=1)
    assert sum(map(len, sides.values())) == 300
    assert 30 < len(sides["val"]) < 90
    held_out = {question(found.prompt) for found in sides["val"]}
    assert not held_out & {question(found.prompt) for found in sides["train"]}
    more = split(made(303), None, 0.2, seed=1)
    assert all([found for found in more[side] if found in sides[side]] == sides[side] for side in sides)
    assert sides != split(made(300), None, 0.2, seed=2)
    least = split(made(6), None, 0.01, seed=1)
    assert (len(least["train"]), len(least["val"])) == (3, 3)  # one of two prompts
    few = split(made(300), 40, 0.2, seed=1)
    assert sum(map(len, few.values())) == 40
    assert few["train"] == sides["train"][: len(few["train"])]
