from typing import Any

import pytest

from lib.params.text import CleanRules
from lib.text.quality import broken_rule

NONE = dict.fromkeys(CleanRules.model_fields)


def rules(**given: Any) -> CleanRules:
    return CleanRules(**{**NONE, **given})


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
    assert broken_rule(kept, rules(**{rule: value})) is None
    assert broken_rule(dropped, rules(**{rule: value})) == rule
    assert broken_rule(dropped, rules()) is None


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_nothing_is_empty_under_any_rules(text: str) -> None:
    assert broken_rule(text, rules()) == "empty"
