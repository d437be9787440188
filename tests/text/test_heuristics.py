from typing import Any

import pytest
from datatrove.data import Document as Row

from lib.params import clean
from lib.text.heuristics import BlockList, Heuristics

NONE = dict.fromkeys(clean.Heuristics.model_fields)


def broken_rule(text: str, **given: Any) -> str | None:
    return Heuristics(clean.Heuristics(**{**NONE, **given})).apply(Row(text=text, id="1"))


# Each rule with a text just inside and a text just outside.
@pytest.mark.parametrize(
    ("rule", "value", "kept", "dropped"),
    [
        ("min_words", 3, "one two three", "one two"),
        ("max_words", 3, "one two three", "one two three four"),
        ("min_mean_word_length", 3.0, "abc abcd ab", "abc ab"),
        ("max_mean_word_length", 3.0, "abc abcd ab", "abcd abc"),
        ("max_symbol_word_ratio", 0.25, "# one two three", "# one two"),
        ("max_symbol_word_ratio", 0.25, "one two three four...", "one two three… four…"),
        ("min_alphabetic_words", 0.5, "one 2 3 four", "one 2 3"),
        ("max_duplicate_lines", 0.5, "a\nb\n\na\nb", "a\na\n\n a"),
        ("max_line_length", 5, "12345\n123", "123\n123456"),
    ],
)
def test_the_border_of_each_rule(rule: str, value: float, kept: str, dropped: str) -> None:
    assert broken_rule(kept, **{rule: value}) is None
    assert broken_rule(dropped, **{rule: value}) == rule
    assert broken_rule(dropped) is None


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("This is for INTERNAL use\nonly, please.", True),
        ("an internal useonly", False),
        ("international use only", False),
        ("C++ is here", True),
        ("c+ is here", False),
        ("Grüße aus Köln", True),
    ],
)
def test_a_phrase_of_the_block_list_in_any_case_as_whole_words(text: str, blocked: bool) -> None:
    step = BlockList(clean.BlockList(phrases=["internal  Use Only", "c++", "KÖLN"]))
    assert step.apply(Row(text=text, id="1")) == ("block_list" if blocked else None)
