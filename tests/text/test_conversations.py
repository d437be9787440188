"""What documents turn into, on documents small enough to read."""

import json
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.text.conversations import (
    MAX_COMMAND,
    MAX_PASSAGE,
    Conversation,
    converse,
    examples,
    read_conversations,
    sentences,
    usable,
)
from lib.text.documents import Document

PAGE = """**Example 1: To create a document**

The following ``create-document`` example creates a Systems Manager document. ::

    aws ssm create-document \\
        --content file://example.yml \\
        --name "Example"

Output::

    {
        "Name": "Example"
    }

For more information, see `Documents <https://docs.aws.amazon.com/ssm/>`__ in the *AWS Systems Manager User Guide*.

**Example 2: To create a document with tags**

The following ``create-document`` example tags it. ::

    aws ssm create-document --tags \\
        Key=a,Value=b
"""


def document(text: str, records: list | None = None, name: str = "s/1") -> Document:
    return Document(name, text, "u", "s", "MIT", json.dumps(records or []))


def turns(doc: Document) -> list[tuple[str, str, str]]:
    for found in converse(doc):
        assert [message["role"] for message in found.messages] == ["user", "assistant"]
    return [(found.kind, found.messages[0]["content"], found.messages[1]["content"]) for found in converse(doc)]


def test_manual_page_gives_each_task_with_its_command_on_one_line() -> None:
    first, second = turns(document(PAGE))
    assert first[0] == second[0] == "manual"
    assert "create a document in AWS Systems Manager" in first[1]
    assert first[2] == 'aws ssm create-document --content file://example.yml --name "Example"'
    assert "create a document with tags in AWS Systems Manager" in second[1]
    assert second[2] == "aws ssm create-document --tags Key=a,Value=b"


def test_product_is_not_named_twice() -> None:
    page = (
        "**To list Amazon Kendra indexes**\n\nDo this. ::\n\n    aws kendra list-indices\n\n"
        "See x in the *Amazon Kendra Developer Guide*.\n"
    )
    ((_, question, _),) = turns(document(page))
    assert question.count("Kendra") == 1


def test_without_product_or_heading_the_question_says_what_the_command_does() -> None:
    page = "The following command deletes the website of a bucket named ``b``::\n\n  aws s3api delete-bucket-website\n"
    ((_, question, answer),) = turns(document(page))
    assert "deletes the website of a bucket named b" in question
    assert answer == "aws s3api delete-bucket-website"


@pytest.mark.parametrize(
    ("block", "command"),
    [
        ("    aws x y \\\n\n", "aws x y"),
        ("    aws x y --z '{\n        \"a\":  1\n    }' \\\n        --q\n", "aws x y --z '{ \"a\": 1 }' --q"),
        ("    aws x y /\n        --old-style\n", "aws x y --old-style"),
        ("    $ aws x y\n    output\n", "aws x y"),
    ],
)
def test_command_is_joined(block: str, command: str) -> None:
    ((_, _, found),) = examples(f"**To do**\n\nText::\n\n{block}")
    assert found == command


@pytest.mark.parametrize(
    "block",
    [
        '    {\n        "a": 1\n    }\n',
        "    aws x y --z 'never closed\n",
        "    aws x y --z " + "a" * MAX_COMMAND + "\n",
    ],
)
def test_json_broken_and_long_commands_are_left_out(block: str) -> None:
    assert turns(document(f"**To do**\n\nText::\n\n{block}")) == []


def test_code_and_prose_give_nothing() -> None:
    code = 'def f():\n    """This example shows it::\n\n        for x in y:\n    """\n\n    return x\n'
    assert turns(document(code)) == []
    assert turns(document("This is a letter. The following lists nothing.\n\n    import x from y\n")) == []


def test_article_answers_with_its_first_sentences() -> None:
    text = "Feldspar\n\nFeldspar is a group of minerals. It has approx. 5 forms. It is common.\nNext paragraph."
    ((kind, question, answer),) = turns(document(text, [{"title": "Feldspar"}]))
    assert kind == "encyclopedia"
    assert question in ("What is Feldspar?", "Tell me about Feldspar.")
    assert answer.startswith("Feldspar is a group of minerals.")
    assert "Next paragraph" not in answer


def test_nobody_is_asked_what_a_person_is() -> None:
    for number in range(20):
        for title, text in [("Ada Lovelace", "Ada Lovelace is a writer."), ("Plato", "Plato was a philosopher.")]:
            ((_, question, _),) = turns(document(f"{title}\n\n{text}", [{"title": title}], f"s/{number}"))
            assert question == f"Tell me about {title}."


def test_overlong_first_sentence_gives_no_answer() -> None:
    assert turns(document("X\n\nX is " + "very " * 100 + "long.", [{"title": "X"}])) == []


@pytest.mark.parametrize("field", ["answer", "label"])
def test_yes_no_gives_every_question_its_answer(field: str) -> None:
    records = [{"question": "is it red", field: True}, {"question": "is it blue?", field: False}, {"question": "is it"}]
    assert turns(document("It is red.", records)) == [
        ("yes_no", "It is red.\n\nIs it red?", "Yes."),
        ("yes_no", "It is red.\n\nIs it blue?", "No."),
    ]


def test_long_passage_is_cut_after_a_sentence() -> None:
    passage = " ".join(["This sentence has exactly six words."] * 50)
    ((_, question, _),) = turns(document(passage, [{"question": "q", "answer": True}]))
    kept = question.removesuffix("\n\nQ?")
    assert kept.endswith("words.")
    assert MAX_PASSAGE - 6 < len(kept.split()) <= MAX_PASSAGE


def test_sentences_are_not_cut_in_names() -> None:
    text = "J. R. R. Tolkien lived in the U.S. of c. 1900. He wrote (often). Then “he” left."
    assert sentences(text) == ["J. R. R. Tolkien lived in the U.S. of c. 1900.", "He wrote (often).", "Then “he” left."]


FACTS = """Kazakhstan: Government

Country name:
  conventional long form: Republic of Kazakhstan
Government type: presidential republic
Capital:
  name: Astana
  geographic coordinates: 51 10 N, 71 25 E
GDP: $288 billion
Divisions: """


def test_facts_are_asked_for_one_after_the_other() -> None:
    ((kind, messages),) = [(found.kind, found.messages) for found in converse(document(FACTS + "x" * 400))]
    assert kind == "facts"
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    answers = {message["content"] for message in messages[1::2]}
    assert answers == {"presidential republic", "Astana", "$288 billion"}
    questions = [message["content"] for message in messages[::2]]
    assert questions[0].startswith("Tell me the ")
    assert questions[0].endswith(" of Kazakhstan.")
    assert all("Kazakhstan" not in question for question in questions[1:])
    assert sum("GDP" in question for question in questions) == sum("government type" in each for each in questions) == 1


def test_prose_with_a_colon_has_no_facts() -> None:
    assert not list(converse(document("Dear all: Hello\n\nWe met. Note: this is one line.\n")))
    assert not list(converse(document("Government type: republic\nCapital: Astana\n")))


def test_a_conversation_that_was_kept_comes_as_it_is_and_alone() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    found = list(converse(document(PAGE, [{"messages": messages, "title": "X"}])))
    assert [(one.kind, one.messages, one.source) for one in found] == [("messages", messages, "s")]


USER, ANSWER, SYSTEM = ({"role": role, "content": f" {role} "} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(
    ("messages", "kept", "reason"),
    [
        ([USER, ANSWER], 2, None),
        ([SYSTEM, USER, ANSWER, USER, ANSWER], 5, None),
        ([USER, ANSWER, USER], 2, None),  # the last question has no answer
        ([USER, ANSWER, {"role": "assistant", "content": " "}], 2, None),
        ([USER], 0, "no_answer"),
        ([SYSTEM], 0, "no_answer"),
        ([], 0, "no_messages"),
        (None, 0, "no_messages"),
        ([["user", "Hi"]], 0, "no_messages"),
        ([{"role": "user", "content": 3}, ANSWER], 0, "no_messages"),
        ([{"role": "narrator", "content": "x"}, USER, ANSWER], 0, "unknown_role"),
        ([ANSWER, USER, ANSWER], 0, "no_question"),
        ([SYSTEM, ANSWER], 0, "no_question"),
    ],
)
def test_what_is_usable_of_a_conversation(messages: object, kept: int, reason: str | None) -> None:
    found, why = usable(messages)
    assert why == reason
    assert [turn["role"] for turn in found] == [turn["role"] for turn in (messages or [])[:kept]]
    assert all(turn["content"] == turn["content"].strip() for turn in found)


def test_a_file_of_conversations_names_the_line_that_is_none(tmp_path: Path) -> None:
    row = {"id": "a", "kind": "synthetic_qa", "document": "s/1", "messages": [USER, ANSWER], "model": "m"}
    path = tmp_path / "qa.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({"id": "b"}) + "\n")
    found = read_conversations(path, "synthetic")
    assert next(found) == ("s/1", Conversation("a", "synthetic_qa", [USER, ANSWER], "synthetic"))
    with pytest.raises(SmeltError, match=r"qa\.jsonl, line 2"):
        next(found)
