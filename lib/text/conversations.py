"""Conversations made from what documents hold already: nothing is invented, so every answer can be checked.

    manual         a page with a heading and an example's command (reStructuredText)  ->  "How do I ...?", the command
    encyclopedia   an article kept with its title                                     ->  "What is ...?", its beginning
    yes_no         a passage kept with questions and answers                          ->  passage and question, "Yes."
    facts          headed lines below "Subject: Chapter"                              ->  several turns, a fact each
    messages       a conversation kept as such (chat sources, your own JSONL)         ->  as it is

Which of them a document gives is decided by its text and records alone. What varies (the wording of a question, which
examples are taken when there are more than enough) is drawn by a hash: the same document gives the same conversations
in every corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.pipeline.errors import SmeltError
from lib.text.documents import Document

KINDS = ("manual", "encyclopedia", "yes_no", "facts", "messages")
MAX_COMMAND = 400  # characters
MAX_TASK = 300  # characters
MAX_ANSWER = 300  # characters, of an encyclopedia's answer
MAX_PASSAGE = 110  # words: with question and template this fits the default context of 256 tokens
MAX_FACTS = 3  # turns of a conversation about facts
ROLES = ("system", "user", "assistant", "tool")


class Conversation(NamedTuple):
    id: str  # of the document; one document may give several conversations
    kind: str
    messages: list[dict[str, str]]
    source: str = ""


def _hash(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()


def _choose(options: Sequence[str], *parts: object) -> str:
    return options[int.from_bytes(_hash(*parts)[:8], "big") % len(options)]


# ----------------------------------------------------------------------------------------------------------------------
# Sentences

# A full stop ends a sentence after two small letters, digits or closing marks, and before a capital or digit: not after
# initials ("J. R. R. Tolkien"), "U.S." or "c.".
_SENTENCE_END = re.compile(r"""(?<=[a-z0-9)\]”"'%][a-z0-9)\]”"'%][.!?])["”')]?\s+(?=["“'(]?[A-Z0-9])""")


def sentences(text: str) -> list[str]:
    """Split running text into sentences; in doubt, not."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


# ----------------------------------------------------------------------------------------------------------------------
# manual

_HEADING = re.compile(r"\*\*(.+?)\*\*$")
_NUMBER = re.compile(r"^(?:Example\s*\d*\s*[:.]?|\d+\s*[:.])\s*")
_COMMAND = re.compile(r"(?:\$ )?[a-z][a-z0-9_-]* [a-z][a-z0-9_-]*(?=\s|$)")  # a program and its subcommand
# "The following ``describe-document`` example displays details ...": what it displays says more than its name.
_INTRODUCTION = re.compile(
    r"(?:The following|This) (?:(?:``[^`]+``|\*\*[^*]+\*\*|[a-z0-9]+(?:-[a-z0-9]+)+|command|example) )+"
    r"((?!is |was |has )[a-z]+s .+)"
)
# "... in the *AWS Systems Manager User Guide*": the name of the product that the page belongs to.
_GUIDE = re.compile(
    r"\bin the \*{1,2}(?:The )?([^*]+?)\s+"
    r"(?:(?:User|Users|Developer|Developers|Dev|Administrator|Administration|Management|API|Application) )?"
    r"(?:Guide|Reference)\b[^*]*\*"
)
_MARKUP = [
    (re.compile(r"`([^`<]+?)\s*<[^>]*>`__?"), r"\1"),  # links
    (re.compile(r"``([^`]*)``|`([^`]*)`"), r"\1\2"),
    (re.compile(r"\*\*([^*]+)\*\*|\*([^*]+)\*"), r"\1\2"),
]

_ASK_TASK = ("How do I {}?", "How can I {}?", "Which command do I use to {}?", "I want to {}. What do I type?")
_ASK_COMMAND = ("Which command {}?", "What is the command that {}?")


def _plain(markup: str) -> str:
    for pattern, replacement in _MARKUP:
        markup = pattern.sub(replacement, markup)
    return " ".join(markup.split())


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # an open quotation
        return False
    return True


def _one_line(block: str) -> str | None:
    """The first command of a literal block on one line, without its continuation marks; None where it is incomplete."""
    command = ""
    for line in block.splitlines():
        line = re.sub(r"\s/$", r" \\", line.strip())  # some pages continue a line with a slash
        command += " " + line.removesuffix("\\")
        if not line.endswith("\\") and _is_complete(command):
            break
    return " ".join(command.split()) if _is_complete(command) else None


def examples(text: str) -> Iterator[tuple[str, str, str]]:
    """Find worked examples in reStructuredText: (heading, introduction, command), the first two possibly empty.

    An example is a bold line or a paragraph "The following ... example ...", and then an indented block that begins
    with a command: a program and its subcommand, both in small letters.
    """
    heading = introduction = ""
    for block in re.split(r"\n\s*\n", text):
        if block.startswith((" ", "\t")):
            if (heading or introduction) and _COMMAND.match(block.strip()) and (command := _one_line(block)):
                yield heading, introduction, command.removeprefix("$ ")
                heading = introduction = ""
        elif match := _HEADING.match(block.strip()):
            heading, introduction = _plain(_NUMBER.sub("", match[1])), ""
        elif block.startswith("Th") and (match := _INTRODUCTION.match(" ".join(block.split()))):
            introduction = sentences(_plain(match[1].rstrip(": ")))[0]


def _manual(document: Document) -> Iterator[Conversation]:
    found = list(examples(document.text))
    guide = _GUIDE.search(" ".join(document.text.split())) if found else None
    product = guide[1] if guide else ""
    for number, (heading, introduction, command) in enumerate(found):
        task = heading.removeprefix("To ").rstrip(".: ") if heading.startswith("To ") else ""
        named = product and re.sub(r"^(?:AWS|Amazon) ", "", product).lower() in task.lower()
        where = "" if named or not product else f" in {product}"
        if task and (product or not introduction):
            question = _choose(_ASK_TASK, document.id, number).format(task + where)
        elif introduction:
            question = _choose(_ASK_COMMAND, document.id, number).format(introduction.rstrip(".") + where)
        else:
            continue
        if len(question) <= MAX_TASK and len(command) <= MAX_COMMAND:
            yield _conversation(document, "manual", question, command)


# ----------------------------------------------------------------------------------------------------------------------
# encyclopedia

_ASK_THING, _ASK_ANYTHING = "What is {}?", "Tell me about {}."
_NAME = re.compile(r"\S+(?: (?:[A-Z]\S*|of|the|and|de|van|von))*(?: [A-Z]\S*)")  # "What is Ada Lovelace?" would be odd
_PAST = re.compile(r"\bwas an?\b")


def _encyclopedia(document: Document) -> Iterator[Conversation]:
    title = next((record["title"] for record in document.kept if isinstance(record.get("title"), str)), "").strip()
    article = document.text.removeprefix(title).strip()
    found = sentences(article.partition("\n")[0])
    answer = " ".join(found[:2]) if len(" ".join(found[:2])) <= MAX_ANSWER else found[0]
    if title and answer and len(answer) <= MAX_ANSWER:
        maybe_a_person = _NAME.fullmatch(title) or _PAST.search(found[0])
        options = (_ASK_ANYTHING,) if maybe_a_person else (_ASK_THING, _ASK_ANYTHING)
        yield _conversation(document, "encyclopedia", _choose(options, document.id).format(title), answer)


# ----------------------------------------------------------------------------------------------------------------------
# yes_no


def _first_words(text: str, limit: int) -> str:
    """The sentences at the beginning of `text` that together have at most `limit` words, one at least."""
    found = sentences(text)
    kept, words = found[0], len(found[0].split())
    for sentence in found[1:]:
        words += len(sentence.split())
        if words > limit:
            break
        kept += " " + sentence
    return kept if len(kept.split()) <= limit else " ".join(kept.split()[:limit])


def _answer(record: dict[str, Any]) -> bool | None:
    value = record.get("answer", record.get("label"))
    return value if isinstance(value, bool) else None


def _yes_no(document: Document) -> Iterator[Conversation]:
    for record in document.kept:
        question, answer = record.get("question"), _answer(record)
        if isinstance(question, str) and (question := question.strip(" ?")) and answer is not None:
            prompt = f"{_first_words(document.text, MAX_PASSAGE)}\n\n{question[0].upper()}{question[1:]}?"
            yield _conversation(document, "yes_no", prompt, "Yes." if answer else "No.")


# ----------------------------------------------------------------------------------------------------------------------
# facts

_SUBJECT = re.compile(r"(?P<subject>[A-Z][^:\n]{1,60}): [A-Z][^:\n]{1,60}\n\n")
_FACT = re.compile(r"^(?P<name>[A-Z][A-Za-z ,'/-]{2,50}):(?: (?P<text>\S.*)|\n  name: (?P<nested>\S.*))$", re.MULTILINE)
_ASK_FACT, _ASK_NEXT = "Tell me the {} of {}.", ("And the {}?", "What about the {}?")


def _facts(document: Document) -> Iterator[Conversation]:
    match = _SUBJECT.match(document.text)
    if not match:
        return
    found = {fact["name"]: fact["text"] or fact["nested"] for fact in _FACT.finditer(document.text, match.end())}
    short = [(name, text) for name, text in found.items() if len(text) <= MAX_ANSWER]
    taken = sorted(short, key=lambda fact: _hash(document.id, fact[0]))[:MAX_FACTS]
    messages: list[dict[str, str]] = []
    for name, text in taken:
        asked = name[0].lower() + name[1:] if name[1].islower() else name  # not of "GDP"
        ask = _choose(_ASK_NEXT, document.id, name) if messages else _ASK_FACT
        messages += _exchange(ask.format(asked, match["subject"]), text)
    if messages:
        yield Conversation(document.id, "facts", messages, document.source)


# ----------------------------------------------------------------------------------------------------------------------
# messages


def usable(messages: Any) -> tuple[list[dict[str, str]], str | None]:
    """The part of a conversation that can be learnt from, up to its last answer; and the reason why there is none."""
    turns = messages if isinstance(messages, list) else []
    if not all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        return [], "no_messages"
    found = [{"role": turn["role"], "content": turn["content"].strip()} for turn in turns]
    while found and (found[-1]["role"] != "assistant" or not found[-1]["content"]):
        found.pop()
    if not found:
        return [], "no_answer" if turns else "no_messages"
    if any(turn["role"] not in ROLES for turn in found):
        return [], "unknown_role"
    if found[0]["role"] == "assistant" or all(turn["role"] != "user" for turn in found):
        return [], "no_question"
    return found, None


# ----------------------------------------------------------------------------------------------------------------------


def _exchange(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _conversation(document: Document, kind: str, question: str, answer: str) -> Conversation:
    return Conversation(document.id, kind, _exchange(question, answer), document.source)


def converse(document: Document) -> Iterator[Conversation]:
    """Every conversation that a document gives; for most documents none. One kept as messages gives no other.

    What was kept as messages comes as it is, and may not be of use (see `usable`).
    """
    kept = document.kept if document.records != "[]" else []
    conversations = [record["messages"] for record in kept if "messages" in record]
    for messages in conversations:
        yield Conversation(document.id, "messages", messages, document.source)
    if conversations:
        return
    yield from _manual(document)
    yield from _facts(document)
    if kept:
        yield from _encyclopedia(document)
        yield from _yes_no(document)


def read_conversations(path: Path, source: str) -> Iterator[tuple[str, Conversation]]:
    """The conversations of a JSONL file that another stage wrote, each with the id of the document that it is about.

    A line is `{"id": ..., "kind": ..., "document": ..., "messages": [...]}`.

    Raises:
        SmeltError: a line is something else.
    """
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                found = Conversation(row["id"], row["kind"], row["messages"], source)
                yield row["document"], found
            except (ValueError, KeyError, TypeError) as error:
                raise SmeltError(
                    f"{path.name}, line {number}: expected an object with id, kind, document and messages ({error!r})"
                ) from None
