from __future__ import annotations

import json

import pytest

from lib.evals.command_line import Manual, parse, read_manual

MANUAL = Manual(
    [
        "aws s3 mb s3://bucket --region us-east-1",
        "aws s3 ls",
        "aws ec2 describe-instances --instance-ids i-1 --query 'A[].B' --no-paginate",
        "aws ec2 wait instance-running --filters=Name=x",
        "aws configure",
    ]
)


@pytest.mark.parametrize(
    ("command", "known"),
    [
        ("aws s3 mb s3://other", True),
        ("aws s3 ls --region eu-west-1", True),  # an option of the service, with another operation
        ("aws s3 ls --instance-ids i-2", False),  # of another service
        ("aws s3 rb s3://bucket", False),
        ("aws ec2 describe-instances --query 'Reservations[?a==`b`]'", True),
        ("aws ec2 describe-instances --query 'open", False),
        ("aws ec2 wait instance-running --filters Name=y", True),
        ("aws configure", True),
        ("aws", False),
        ("To list buckets, use the console.", False),
        ("", False),
    ],
)
def test_a_command_is_known_by_its_path_and_the_options_of_its_service(command, known):
    assert MANUAL.knows(command) is known


def test_values_are_no_part_of_a_command():
    one, other = parse("aws s3 cp a.txt s3://b --acl x --sse=AES256"), parse("aws s3 cp Z --sse KMS --acl 'y z'")
    assert one == other == (("aws", "s3", "cp"), {"--acl", "--sse"})


def test_the_manual_is_all_splits_and_one_kind(tmp_path):
    for split, kind, command in (
        ("train", "manual", "aws a b"),
        ("test", "manual", "aws c d"),
        ("val", "x", "aws e f"),
    ):
        row = {"kind": kind, "messages": [{"content": "?"}, {"content": command}]}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    manual = read_manual(tmp_path, "manual")
    assert [manual.knows(command) for command in ("aws a b", "aws c d", "aws e f")] == [True, True, False]
