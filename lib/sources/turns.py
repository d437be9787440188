"""Chat data: from the ways in which datasets spell conversations to messages, and to text.

Every dialect becomes `messages`, the form that chat templates take: [{"role": "user", "content": "..."}, ...] with the
roles system, user, assistant and tool. They are kept in the document's `records`, where later stages find them, and the
document's text is the conversation as one reads it:

    User: How do I list my buckets?

    Assistant: aws s3 ls

Known are a column of turns ({"role", "content"} as of OpenAI, or {"from", "value"} as of ShareGPT, OpenHermes and
Infinity-Instruct), and a table with one message a row and a parent each (oasst2), of which every thread gives one
conversation: its first message, and each time the best reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lib.params.sources import Thread
from lib.text.documents import Document

Message = dict[str, str]

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}


def messages(turns: Any) -> tuple[list[Message], str | None]:
    """The messages of a column of turns, and the reason why they cannot be used, or None."""
    if not isinstance(turns, list) or not turns:
        return [], "no_messages"
    found = []
    for turn in turns:
        if not isinstance(turn, dict):
            return [], "no_messages"
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role not in _ROLES:
            return [], "unknown_role"
        if not isinstance(content, str):
            return [], "content_is_no_text"
        if content.strip():
            found.append({"role": _ROLES[role], "content": content.strip()})
    if not any(message["role"] == "assistant" for message in found):
        return [], "no_answer"
    return found, None


def render(conversation: Iterable[Message]) -> str:
    """The conversation as text, each message after the name of its role."""
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in conversation)


class Row(NamedTuple):
    """One message of a threaded table, and the document that it would be alone."""

    place: Document
    value: dict[str, Any]


class Branch(NamedTuple):
    """The conversation of one thread, or one message that is in none, with the reason."""

    row: Row  # the thread's first message
    messages: list[Message]
    reason: str | None


def branches(rows: Iterable[Row], columns: Thread) -> Iterator[Branch]:
    """The conversation of every thread, and every message that is not in it. Memory is bounded by one thread."""
    thread: list[Row] = []
    for row in rows:
        if row.value[columns.parent] is None and thread:
            yield from _follow(thread, columns)
            thread = []
        thread.append(row)
    if thread:
        yield from _follow(thread, columns)


def _follow(thread: list[Row], columns: Thread) -> Iterator[Branch]:
    first = thread[0]
    replies: dict[Any, list[Row]] = {}
    known = {row.value[columns.id] for row in thread}
    for row in thread[1:]:
        replies.setdefault(row.value[columns.parent], []).append(row)
    if first.value[columns.parent] is not None:  # its own first message was filtered out
        known, taken = set(), []
    else:
        taken = [first]
        # A message is taken once: ids that go in a circle end here.
        while below := replies.pop(taken[-1].value[columns.id], []):
            taken.append(min(below, key=lambda row: _rank(row, columns)))
    turns = [{"role": row.value[columns.role], "content": row.value[columns.content]} for row in taken]
    if taken:
        found, reason = messages(turns)
        yield Branch(first, found, reason)
    chosen = {id(row) for row in taken}
    for row in thread:
        if id(row) not in chosen:
            parted = row.value[columns.parent] not in known
            yield Branch(row, [], "parent_is_missing" if parted else "not_the_best_reply")


def _rank(row: Row, columns: Thread) -> float:
    rank = row.value[columns.rank] if columns.rank else None
    return float("inf") if rank is None else float(rank)
