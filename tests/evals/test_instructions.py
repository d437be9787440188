from __future__ import annotations

import json
import socket
from collections import Counter

import pytest

from lib.evals.instructions.follow import OWN, Prompt, check, checkers, read_prompts, score
from lib.pipeline.errors import SmeltError
from tests.evals.instruction_prompts import lines, solved

# As much of NLTK's English data as its splitter needs to load: the real one is an asset.
PUNKT = {"abbrev_types.txt": "mr\ndr\n", "collocations.tab": "", "ortho_context.tab": "", "sent_starters.txt": ""}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nltk")
    for name, text in {**PUNKT, "english": "a\nthe\nis\n"}.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
        with checkers(folder) as registry:
            yield registry


@pytest.fixture(scope="module")
def all_solved(known):
    return solved(known)


def test_the_file_is_what_the_generator_makes(all_solved):
    assert OWN.read_text(encoding="utf-8") == lines([one.prompt for one in all_solved])
    assert read_prompts(OWN, 1000) == [one.prompt for one in all_solved]


def test_there_are_enough_and_of_every_kind(known, all_solved):
    assert len(all_solved) == 120
    kinds = Counter(kind for one in all_solved for kind in one.prompt.kinds)
    ifeval = {name: checker for name, checker in known.items() if checker.__module__.startswith("lm_eval")}
    assert kinds.keys() == ifeval.keys()
    assert min(kinds.values()) >= 3
    assert len({one.prompt.prompt for one in all_solved}) == 120
    assert sum(len(one.prompt.kinds) > 1 for one in all_solved) >= 40


def test_arguments_are_what_the_checkers_take(known, all_solved):
    for one in all_solved:
        for kind, arguments in zip(one.prompt.kinds, one.prompt.arguments, strict=True):
            checker = known[kind](kind)
            assert set(arguments) == set(checker.get_instruction_args_keys()), kind
            description = " ".join(checker.build_description(**arguments).split())
            assert description in one.prompt.prompt  # nothing was drawn by the checker: all of it is given


def test_a_right_answer_follows_and_a_wrong_one_does_not(known, all_solved):
    for one in all_solved:
        right, wrong = check(one.prompt, one.followed, known), check(one.prompt, one.broken, known)
        assert all(right.strict), (one.prompt, one.followed, right)
        assert all(right.loose)
        assert not all(wrong.strict), (one.prompt, one.broken, wrong)


def test_loose_forgives_a_first_line_that_strict_does_not(known):
    prompt = Prompt("1", "p", ["startend:quotation"], [{}])
    assert check(prompt, 'Here it is:\n"calm"', known) == ([False], [True])
    assert check(prompt, "", known) == ([False], [False])


def test_accuracies_by_hand(known):
    lower = ("change_case:english_lowercase", {})
    comma = ("punctuation:no_comma", {})
    prompts = [
        Prompt("a", "p", [lower[0], comma[0]], [lower[1], comma[1]]),
        Prompt("b", "p", [comma[0]], [comma[1]]),
    ]
    metrics, items = score("own", prompts, ["This is an English sentence with a capital", "none here"], known)
    assert metrics["prompts"] == 2
    assert metrics["instructions"] == 3
    assert metrics["prompt_strict"]["value"] == 0.5
    assert metrics["instruction_strict"]["value"] == pytest.approx(2 / 3)
    assert {(item.task, item.id): item.score for item in items} == {
        ("own/prompt_strict", "a"): 0, ("own/prompt_strict", "b"): 1,
        ("own/prompt_loose", "a"): 0, ("own/prompt_loose", "b"): 1,
    }  # fmt: skip


# IFBench's form: arguments that an instruction does not take are null.
IFBENCH = [
    ("count:numbers", {"N": 2, "keyword": None}, "There are 3 of 14.", "There are 3 of 14 or 15."),
    ("format:no_whitespace", {"N": None}, "Nothing", "Some thing"),
    ("words:palindrome", {}, "level civic radar kayak rotor madam refer stats tenet rotator", "calm"),
    ("ratio:stop_words", {"percentage": 40}, "Calm rivers", "the the is a the"),
    ("count:word_count_range", {"min_words": 2, "max_words": 4}, "Two words", "One"),
]


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), IFBENCH)
def test_kinds_of_ifbench(known, kind, arguments, right, wrong):
    prompt = Prompt("1", "p", [kind], [arguments])
    assert check(prompt, right, known).strict == [True]
    assert check(prompt, wrong, known).strict == [False]


def test_prompts_that_cannot_be_checked_are_left_out_and_a_missing_column_is_named(tmp_path):
    row = {"key": "1", "prompt": "p", "instruction_id_list": ["words:start_verb"], "kwargs": [{}]}
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row | {"instruction_id_list": [kind]}) for kind in ("words:start_verb", "b")))
    assert [prompt.kinds for prompt in read_prompts(path, 9)] == [["b"]]
    del row["kwargs"]
    path.write_text(json.dumps(row))
    with pytest.raises(SmeltError, match=r"prompts\.jsonl, line 1: no column kwargs \(there are: key, prompt, inst"):
        read_prompts(path, 9)
