from __future__ import annotations

import json
import statistics

import pytest

from lib.evals.command_line import Manual
from lib.evals.commands import Example, find_command, read_examples, score_commands, token_f1


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        ("aws s3 ls", "aws s3 ls"),
        ("  aws   s3\tls  \nand more", "aws s3 ls"),
        ("You can type:\n\n```bash\naws s3 ls --recursive\n```\nGood luck", "aws s3 ls --recursive"),
        ("```\n$ aws s3 ls\n```", "aws s3 ls"),
        ("`aws s3 ls`", "aws s3 ls"),
        ("Use `aws s3 ls` for this.", "aws s3 ls"),
        ("Use `aws s3 cp` or so.\naws s3 ls", "aws s3 ls"),
        ("aws s3 cp \\\n    a \\\n    b", "aws s3 cp a b"),
        ("aws ec2 describe --query 'x[?a==`b`]'", "aws ec2 describe --query 'x[?a==`b`]'"),
        ("\n\nTo list, call the boss.\nThen wait.", "To list, call the boss."),
        ("awsome tool", "awsome tool"),
        ("```\n```", ""),
        ("", ""),
    ],
)
def test_find_command(answer, command):
    assert find_command(answer, "aws") == command


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("aws s3 ls", "aws s3 ls", 1.0),
        ("aws s3 ls", "aws s3 cp a b", 2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5)),
        ("a a a", "a b", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("x", "y", 0.0),
        ("", "y", 0.0),
    ],
)
def test_token_f1_by_hand(answer, expected, f1):
    assert token_f1(answer, expected) == pytest.approx(f1)


def test_score_commands_by_hand():
    f1 = [1, 3 / 4, 2 / 3, 0]
    answers = ["aws s3 ls", "Try:\naws s3 mb x", "aws ec2 ls", "no idea"]
    expected = ["aws s3 ls", "aws s3 rb x", "aws s3 ls", "aws s3 ls"]
    examples = [Example(f"page-{n}", [{"role": "user", "content": "?"}], right) for n, right in enumerate(expected)]
    metrics, items = score_commands("commands", answers, examples, Manual(["aws s3 ls", "aws s3 mb b"]))
    assert metrics == {
        "examples": 4,
        "service": {"value": 0.5, "stderr": pytest.approx((0.25 / 3) ** 0.5, abs=1e-6)},
        "valid": {"value": 0.5, "stderr": pytest.approx((0.25 / 3) ** 0.5, abs=1e-6)},
        "exact_match": {"value": 0.25, "stderr": pytest.approx((0.1875 / 3) ** 0.5, abs=1e-6)},
        "token_f1": {
            "value": pytest.approx(statistics.mean(f1), abs=1e-6),
            "stderr": pytest.approx(statistics.stdev(f1) / 2, abs=1e-6),
        },
    }
    assert [item.score for item in items if item.task == "commands/token_f1"] == pytest.approx(f1)
    assert [item.id for item in items if item.task == "commands/valid"] == [example.id for example in examples]


def test_nothing_to_score_is_null():
    metrics, items = score_commands("commands", [], [], Manual([]))
    assert metrics["service"] == {"value": None, "stderr": None}
    assert items == []


def test_read_examples_takes_the_first_of_a_kind(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [("a", "manual"), ("b", "yes_no"), ("c", "manual"), ("d", "manual")]
    path.write_text(
        "".join(
            json.dumps(
                {
                    "id": name,
                    "kind": kind,
                    "messages": [{"role": "user", "content": name}, {"role": "assistant", "content": name.upper()}],
                }
            )
            + "\n"
            for name, kind in rows
        ),
        encoding="utf-8",
    )
    assert [(example.prompt, example.expected) for example in read_examples(path, "manual", 2)] == [
        ("a", "A"),
        ("c", "C"),
    ]
    assert read_examples(path, "encyclopedia", 2) == []


def test_an_id_is_of_the_page_and_the_question():
    ids = {
        Example(page, [{"role": "user", "content": question}], answer).id
        for page in ("p", "q")
        for question in ("a", "b")
        for answer in ("x", "y")
    }
    assert len(ids) == 4
