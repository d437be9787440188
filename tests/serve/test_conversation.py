from contextlib import closing

import pytest

from lib.completion.chat_model import ChatModel
from lib.pipeline.errors import SmeltError
from lib.rag.passage import Hit, Passage
from lib.serve.conversation import Conversation, Sampling


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def conversation(model: ChatModel, notes: list[str]) -> Conversation:
    return Conversation(model, Sampling(max_tokens=20, temperature=0.0), notes.append)


def hit(text: str) -> Hit:
    return Hit(Passage("docs/a:0", "docs/a", "docs", "", 0, len(text), text), 0.9)


def test_turns_are_remembered_until_the_context_is_full(conversation: Conversation, notes: list[str]) -> None:
    for turn in range(12):
        answer = "".join(conversation.ask(f"question {turn}"))
        assert conversation.history[-2:] == [
            {"role": "user", "content": f"question {turn}"},
            {"role": "assistant", "content": answer},
        ]
        assert [message["role"] for message in conversation.history] == ["user", "assistant"] * (
            len(conversation.history) // 2
        )
    assert 2 <= len(conversation.history) < 24
    assert notes[0] == "forgot the oldest turn: the context is full"


def test_a_message_longer_than_the_context_is_refused(conversation: Conversation) -> None:
    "".join(conversation.ask("first"))
    with pytest.raises(SmeltError, match="too long: the model's context is 256 tokens"):
        conversation.ask("x" * 300)
    assert len(conversation.history) == 2


def test_passages_are_cut_to_fit_and_the_question_alone_is_remembered(
    conversation: Conversation, notes: list[str]
) -> None:
    hits, pieces = conversation.ask_about("why?", [hit("word " * 11), hit("more " * 40), hit("last")])
    "".join(pieces)
    assert len(hits) == 2
    assert notes == ["2 of 3 passages fit into 256 tokens, the last one cut"]
    assert conversation.history[0] == {"role": "user", "content": "why?"}


def test_a_question_without_room_for_a_passage_is_refused(conversation: Conversation) -> None:
    with pytest.raises(SmeltError, match="no room for a passage"):
        conversation.ask_about("x" * 150, [hit("word " * 50)])


def test_a_stopped_answer_is_remembered_as_far_as_it_went(conversation: Conversation) -> None:
    with closing(conversation.ask("why?")) as pieces:
        began = next(pieces) + next(pieces)
    assert conversation.history[1]["content"] == began
