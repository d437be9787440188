"""datatrove's own blocks, with spaCy behind them, are the reference for our filters of the same names."""

from collections import Counter

import pytest
from datatrove.data import Document as Row
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate

from lib.text.analysis import analyse
from lib.text.cleaning import steps
from lib.text.gopher import Quality, Repetition
from lib.text.language import Language
from lib.text.web_filters import C4Quality, FineWebQuality
from tests.text import corpus, stock

RULES = stock.rules()
FILTERS = ("language", "gopher_repetition", "gopher_quality", "c4", "fineweb")


@pytest.mark.parametrize("name", FILTERS)
def test_every_decision_is_the_stock_block_s(name: str) -> None:
    block, step = stock.blocks()[name], STEPS[name](getattr(RULES, name))
    kept: Counter[bool] = Counter()
    differ = []
    for text in corpus.documents():
        theirs, ours = Row(text=text, id="1"), Row(text=text, id="1")
        decision = bool(get_filter_result(block.filter(theirs))[0])
        kept[decision] += 1
        if (step.apply(ours) is None) != decision or (decision and ours.text != theirs.text):
            differ.append(text[:80])
    assert differ == []
    assert kept[True] > 30
    assert kept[False] > 30


def test_the_whole_chain_keeps_what_the_stock_chain_keeps() -> None:
    texts = corpus.documents()
    theirs = stock.run(stock.blocks().values(), texts)
    ours = stock.run(steps(RULES), texts)
    assert ours == theirs
    assert 10 < sum(text is not None for text in ours) < len(texts) - 10


NOTHING = {
    "gopher_repetition": dict.fromkeys(RULES.gopher_repetition.model_dump()) | {"top_n_grams": [], "dup_n_grams": []},
    "gopher_quality": dict.fromkeys(RULES.gopher_quality.model_dump()) | {"stop_words": []},
    "c4": dict.fromkeys(RULES.c4.model_dump(), False) | {"min_num_sentences": None, "max_word_length": None},
    "fineweb": dict.fromkeys(RULES.fineweb.model_dump()) | {"line_punct_exclude_zero": False, "short_line_length": 5},
}
STEPS = {
    "language": Language,
    "gopher_repetition": Repetition,
    "gopher_quality": Quality,
    "c4": C4Quality,
    "fineweb": FineWebQuality,
}


# Each threshold alone, with a text just inside and a text just outside.
@pytest.mark.parametrize(
    ("name", "threshold", "value", "kept", "dropped", "reason"),
    [
        ("gopher_repetition", "dup_line_frac", 0.5, "a\nb\na\nb", "a\na\na", "gopher_dup_line_frac"),
        ("gopher_repetition", "dup_para_frac", 0.5, "a\n\nb\n\na", "a\n\na\n\na", "gopher_dup_para_frac"),
        ("gopher_repetition", "dup_line_char_frac", 0.3, "aaa\nb\nb", "b\naaa\naaa", "gopher_dup_line_char_frac"),
        ("gopher_repetition", "dup_para_char_frac", 0.2, "aaa\n\nb\n\nb", "aaa\n\naaa", "gopher_dup_para_char_frac"),
        ("gopher_repetition", "top_n_grams", [(2, 0.5)], "a b c d e f", "a b a b c", "gopher_top_2_gram"),
        ("gopher_repetition", "dup_n_grams", [(3, 0.2)], "a b c d e", "a b c a b c", "gopher_dup_3_gram"),
        ("gopher_quality", "min_doc_words", 2, "one two .", "one . .", "gopher_min_doc_words"),
        ("gopher_quality", "max_doc_words", 2, "one two .", "one two three", "gopher_max_doc_words"),
        ("gopher_quality", "min_avg_word_length", 3, "abc .", "ab .", "gopher_min_avg_word_length"),
        ("gopher_quality", "max_avg_word_length", 3, "abc .", "abcd .", "gopher_max_avg_word_length"),
        ("gopher_quality", "max_symbol_word_ratio", 0.5, "# word", "# #", "gopher_max_symbol_word_ratio"),
        ("gopher_quality", "max_bullet_lines_ratio", 0.5, "- a\nb", "- a\n• b", "gopher_max_bullet_lines_ratio"),
        ("gopher_quality", "max_ellipsis_lines_ratio", 0.5, "a...\nb", "a…\nb...", "gopher_max_ellipsis_lines_ratio"),
        ("gopher_quality", "max_non_alpha_words_ratio", 0.5, "a 1", "a 1 2", "gopher_max_non_alpha_words_ratio"),
        ("c4", "min_num_sentences", 2, "One is. Two is.", "One is, two is.", "c4_min_num_sentences"),
        ("c4", "filter_lorem_ipsum", True, "Lorem. Ipsum.", "x Lorem ipsum x", "c4_lorem_ipsum"),
        ("c4", "filter_curly_bracket", True, "a [b]", "a {b}", "c4_curly_bracket"),
        ("fineweb", "line_punct_thr", 0.5, "a.\nb", "a.\nb\nc", "fineweb_line_punct_thr"),
        ("fineweb", "short_line_thr", 0.5, "123456\n1", "123456\n1\n2", "fineweb_short_line_thr"),
        ("fineweb", "char_duplicates_ratio", 0.5, "a\na", "b\naa\naa\naa", "fineweb_char_duplicates_ratio"),
        ("fineweb", "new_line_ratio", 0.5, "a b\nc", "a\nb\nc", "fineweb_new_line_ratio"),
    ],
)  # fmt: skip
def test_each_threshold_alone(name: str, threshold: str, value: object, kept: str, dropped: str, reason: str) -> None:
    model = type(getattr(RULES, name))
    step = STEPS[name](model(**{**NOTHING[name], threshold: value}))
    assert step.apply(Row(text=kept, id="1")) is None
    assert step.apply(Row(text=dropped, id="1")) == reason
    assert STEPS[name](model(**NOTHING[name])).apply(Row(text=dropped, id="1")) is None


def test_stop_words_are_the_user_s() -> None:
    rules = {**NOTHING["gopher_quality"], "min_stop_words": 2, "stop_words": ["der", "die", "und"]}
    step = Quality(type(RULES.gopher_quality)(**rules))
    assert step.apply(Row(text="der Hund und die Katze", id="1")) is None
    assert step.apply(Row(text="der Hund, der Kater", id="1")) == "gopher_min_stop_words"


@pytest.mark.parametrize(
    ("switch", "text", "left", "removed"),
    [
        ("remove_citations", "Water is wet.[12] So [edit] it goes.", "Water is wet. So  it goes.", {"citations": 10}),
        ("filter_no_terminal_punct", "Home\nIt is so.\nMore...", "It is so.", {"no_terminal_punct": 11}),
        ("filter_javascript", "Enable JavaScript now.\nIt is so.", "It is so.", {"javascript": 22}),
        ("filter_policy", "Read our Privacy Policy.\nIt is so.", "It is so.", {"policy": 24}),
        ("min_words_per_line", "Two words.\nIt is so.", "It is so.", {"min_words_per_line": 10}),
        ("max_word_length", "a" * 9 + "\nIt is so.", "It is so.", {"max_word_length": 9}),
    ],
)
def test_what_c4_takes_out_of_a_text_is_counted(switch: str, text: str, left: str, removed: dict[str, int]) -> None:
    value = {"min_words_per_line": 3, "max_word_length": 8}.get(switch, True)
    step, row = C4Quality(type(RULES.c4)(**{**NOTHING["c4"], switch: value})), Row(text=text, id="1")
    assert step.apply(row) is None
    assert row.text == left
    assert step.removed == removed


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_repeated_n_grams_are_counted_as_datatrove_counts_them(n: int) -> None:
    """The border of the threshold lies at the share that datatrove's own loop finds."""
    for text in corpus.documents()[::9]:
        words = text.split()
        text = " ".join(word for word in words if word.isalpha())
        words = text.split()
        share = find_all_duplicate(words, n) / max(1, len(text))
        if not 0 < share < 0.99 or len(analyse(text).words.lengths) != len(words):
            continue
        model = type(RULES.gopher_repetition)
        for limit, reason in ((share - 1e-9, f"gopher_dup_{n}_gram"), (share + 1e-9, None)):
            step = Repetition(model(**{**NOTHING["gopher_repetition"], "dup_n_grams": [(n, limit)]}))
            assert step.apply(Row(text=text, id="1")) == reason
