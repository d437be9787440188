from __future__ import annotations

import pytest

from lib.judge.control import GOLD, NEAR_MISS, SHUFFLED, TRUNCATED, build
from lib.pipeline.errors import SmeltError
from tests.judge.conftest import write_conversations, write_questions


@pytest.fixture
def questions(tmp_path):
    paths = write_conversations(tmp_path / "chat/test.jsonl"), [write_questions(tmp_path / "piqa/validation.jsonl")]
    return {one.question: one for one in build(*paths, per_kind=5, seed=1)}


def test_every_kind_is_there_and_what_has_no_checkable_answer_is_not(questions):
    assert {one.kind for one in questions.values()} == {"manual", "encyclopedia", "choice"}
    assert "Is water wet?" not in questions


def test_a_near_miss_of_a_command_does_the_opposite(questions):
    answers = questions["How do I delete a bucket?"].answers
    assert answers[NEAR_MISS] == "aws s3api create-bucket --bucket mine --region us-east-1"
    answers = questions["Which command lists my users?"].answers
    assert answers[NEAR_MISS] == "aws iam delete-users --max-items 10 --output json"


def test_a_near_miss_of_a_choice_is_another_choice(questions):
    assert questions["What do bees make?"].answers == {GOLD: "honey", NEAR_MISS: "silk", SHUFFLED: "Paris"}


def test_shuffled_answers_are_of_the_same_kind_and_truncated_ones_are_half(questions):
    etna, polo = (questions[name].answers for name in ("What is Mount Etna?", "What is Polo?"))
    assert etna[NEAR_MISS] == polo[GOLD]  # the only other article
    assert etna[TRUNCATED] == "Mount Etna is an active volcano on"
    for one in questions.values():
        for name, answer in one.answers.items():
            assert name == GOLD or answer != one.answers[GOLD]


def test_the_seed_draws_and_the_order_of_the_file_does_not(tmp_path):
    path = write_conversations(tmp_path / "test.jsonl")
    few = [one.question for one in build(path, [], 1, 1)]
    assert few == [one.question for one in build(path, [], 1, 1)]
    drawn = {tuple(one.question for one in build(path, [], 1, seed)) for seed in range(8)}
    assert len(drawn) > 1


def test_choices_are_told_by_their_letters(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "q", "options": "\\nA. x\\nB. y?", "answer": "B. y"}\n')
    (found,) = build(write_conversations(tmp_path / "test.jsonl"), [path], 1, 1)[2:]
    assert found.answers == {GOLD: "y", NEAR_MISS: "x"}


@pytest.mark.parametrize("row", ["{}", "nonsense", '{"question": "q", "options": "A. x", "answer": "B. y"}', "[]"])
def test_a_set_without_its_columns_is_named_with_its_line(tmp_path, row):
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "q", "options": "A. x\\nB. y", "answer": "B. y"}\n' + row + "\n")
    with pytest.raises(SmeltError, match=r"set\.jsonl, line 2: no question, options and an answer"):
        build(write_conversations(tmp_path / "test.jsonl"), [path], 1, 1)
