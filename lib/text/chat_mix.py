"""What fine-tuning learns from, by its share of tokens: your own conversations, other instructions, and plain text.

Instructions beside one's own keep a model able to talk about something else, and plain text keeps its language: without
it a model forgets what it was pretrained on. Shares are of tokens, as a trial tokenizer estimates them: the base model,
whose tokenizer counts in the end, may be another tomorrow without this text being chosen anew.

Which examples are taken follows a hash of seed, document and question, so one more or less does not move the others.
A group that has too little for its share is repeated, at most as often as its `epochs`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.params.text import Chat
from lib.pipeline.errors import SmeltError
from lib.text.conversations import Conversation, usable
from lib.text.documents import Document
from lib.text.mix import trial_bytes_per_token

SYNTHETIC = "synthetic"  # the source of what a teacher wrote about the user's own documents
TURN_TOKENS = 6  # that a template writes around a message; ChatML with a role of one or two tokens
MAX_TEXT = 6000  # characters of one document, so that a long one does not stand for all
SAMPLE_BYTES = 250_000  # of each group, for the trial tokenizer


def _key(conversation: Conversation) -> tuple[str, ...]:
    return (conversation.id, *(message["content"] for message in conversation.messages))


def _place(conversation: Conversation, seed: int, turn: int = 0) -> bytes:
    """In an order drawn by hash, another for each time that a conversation is taken."""
    drawn = (str(seed), conversation.id, conversation.messages[0]["content"], *([str(turn)] if turn else []))
    return hashlib.sha256("\0".join(drawn).encode()).digest()


@dataclass
class Selection:
    """The conversations of one split, and why others are not among them. Found = usable + left out."""

    conversations: list[Conversation] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)  # by kind
    left_out: dict[str, Counter[str]] = field(default_factory=dict)  # reason -> by kind

    def leave_out(self, reason: str, kind: str) -> None:
        self.left_out.setdefault(reason, Counter())[kind] += 1

    def metrics(self) -> dict[str, Any]:
        usable = Counter(one.kind for one in self.conversations)
        return {
            "found": self.found.total(),
            "usable": {kind: usable[kind] for kind in sorted(self.found)},
            "left_out": {reason: dict(sorted(kinds.items())) for reason, kinds in sorted(self.left_out.items())},
        }


def select(found: Iterable[Conversation], most: Mapping[str, int | None], seed: int) -> Selection:
    """The distinct, usable conversations, at most `most[kind]` of a kind (None for all), shuffled.

    A document that comes several times, as mixtures repeat them, counts once.
    """
    selection, distinct = Selection(), {}
    for conversation in found:
        selection.found[conversation.kind] += 1
        messages, reason = usable(conversation.messages)
        if reason is not None:
            selection.leave_out(reason, conversation.kind)
            continue
        conversation = conversation._replace(messages=messages)
        if _key(conversation) in distinct:
            selection.leave_out("repeated", conversation.kind)
        distinct[_key(conversation)] = conversation
    left = {kind: float("inf") if limit is None else limit for kind, limit in most.items()}
    for conversation in sorted(distinct.values(), key=lambda one: _place(one, seed)):
        left.setdefault(conversation.kind, float("inf"))
        if left[conversation.kind] > 0:
            left[conversation.kind] -= 1
            selection.conversations.append(conversation)
        else:
            selection.leave_out("over_the_most", conversation.kind)
    return selection


# ----------------------------------------------------------------------------------------------------------------------
# Shares


@dataclass
class Group:
    """What there is of a group, and what the training set takes of it."""

    share: float
    epochs: int
    text_bytes: np.ndarray  # (N,) UTF-8 bytes of each example, in the order in which they are taken
    messages: np.ndarray  # (N,) of each; 0 in plain text
    conversations: list[Conversation] = field(default_factory=list)  # plain text is read again instead
    bytes_per_token: float = 1.0
    requested: float = 0.0  # tokens
    passes: int = 0  # taken whole
    rest: int = 0  # and so many examples of one more

    @property
    def tokens_of(self) -> np.ndarray:
        """(N,) of each example, as estimated."""
        return self.text_bytes / self.bytes_per_token + TURN_TOKENS * self.messages

    @property
    def available(self) -> float:
        """Tokens of one pass, as estimated."""
        return float(self.tokens_of.sum())

    @property
    def tokens(self) -> float:
        """Taken, as estimated."""
        return self.passes * self.available + float(self.tokens_of[: self.rest].sum())

    @property
    def examples(self) -> int:
        """Taken, repeats counted."""
        return self.passes * len(self.text_bytes) + self.rest

    def times(self, place: int) -> int:
        """How often the example at this place of the order is taken."""
        return self.passes + (place < self.rest)

    def metrics(self, all_tokens: float) -> dict[str, Any]:
        return {
            "requested_share": self.share,
            "share": round(self.tokens / all_tokens, 4),
            "requested_tokens": round(self.requested),
            "tokens": round(self.tokens),
            "examples": self.examples,
            "epochs": round(self.tokens / self.available, 3) if self.available else 0.0,  # passes over what there is
            "available_examples": len(self.text_bytes),
            "available_tokens": round(self.available),
            "bytes_per_token": round(self.bytes_per_token, 4),
        }


def share_out(groups: Mapping[str, Group], tokens: int | None) -> None:
    """Say how much is taken of each group, for a training set of `tokens`.

    None takes as many as the groups have at their shares.

    Raises:
        SmeltError: groups have too little for their share, even in all their epochs; with a line for each.
    """
    wanted = {name: group for name, group in groups.items() if group.share}
    empty = [name for name, group in wanted.items() if not group.available]
    if empty:
        raise SmeltError("the fine-tuning data cannot be mixed:\n" + "\n".join(map(_nothing, empty)))
    if tokens is None:
        tokens = int(min(group.epochs * group.available / group.share for group in wanted.values()))
    for group in wanted.values():
        group.requested = group.share * tokens
    short = [
        _shortage(name, group, tokens)
        for name, group in wanted.items()
        if group.requested > group.epochs * group.available * (1 + 1e-9)
    ]
    if short:
        raise SmeltError(
            f"the fine-tuning data (chat.tokens: {tokens:,}) cannot have the shares that params.yaml asks for:\n"
            + "\n".join(short)
        )
    for group in wanted.values():
        group.passes = min(int(group.requested / group.available + 1e-9), group.epochs)
        left = group.requested - group.passes * group.available
        # Less than a millionth of a pass is a rounding error, not a share.
        if group.passes < group.epochs and left > 1e-6 * group.available:
            group.rest = int(np.searchsorted(np.cumsum(group.tokens_of), left)) + 1
            group.rest = min(group.rest, len(group.text_bytes))


_WHERE = {
    "own": "no conversation of chat.own.sources (documents with questions and answers, examples, or `messages`)",
    "instructions": "no conversation of other sources than chat.own.sources",
    "text": "no document that is plain text",
}


def _nothing(name: str) -> str:
    return f"  {name}: data/mix/train has {_WHERE[name]}. Add some, or set chat.{name}.share to 0 and raise the others"


def _shortage(name: str, group: Group, tokens: int) -> str:
    has = group.epochs * group.available
    epochs = int(-(-group.requested // group.available))
    return (
        f"  {name}: a share of {group.share:g} asks for {group.requested:,.0f} tokens, and {group.epochs} "
        f"epoch{'s' if group.epochs > 1 else ''} of its {len(group.text_bytes):,} examples have {has:,.0f}. Raise "
        f"chat.{name}.epochs to {epochs}, or lower chat.{name}.share to {has / tokens * 0.995:.3g} and raise another, "
        f"or lower chat.tokens to {int(has / group.share):,}, or set it to null"
    )


# ----------------------------------------------------------------------------------------------------------------------
# Examples

Texts = Callable[[], Iterator[tuple[str, str]]]  # (id, text) of the plain text, from its beginning


def group_of(conversation: Conversation, settings: Chat) -> str:
    return "own" if conversation.source in (*settings.own.sources, SYNTHETIC) else "instructions"


def gather(conversations: Sequence[Conversation], texts: Texts, settings: Chat) -> dict[str, Group]:
    """The groups of a training set, with their sizes in tokens as a trial tokenizer estimates them."""
    groups: dict[str, Group] = {}
    samples: dict[str, list[str]] = {}
    for name in ("own", "instructions"):
        found = [one for one in conversations if group_of(one, settings) == name]
        said = [[message["content"] for message in one.messages] for one in found]
        sizes = np.array([sum(len(content.encode()) for content in contents) for contents in said], np.int64)
        given = getattr(settings, name)
        groups[name] = Group(given.share, given.epochs, sizes, np.array(list(map(len, said)), np.int64), found)
        samples[name] = _sample(content for contents in said for content in contents)
    sizes = np.fromiter((len(text.encode()) for _, text in texts()), np.int64)
    groups["text"] = Group(settings.text.share, settings.text.epochs, sizes, np.zeros_like(sizes))
    samples["text"] = _sample(text for _, text in texts())
    for name, bytes_per_token in trial_bytes_per_token(samples).items():
        groups[name].bytes_per_token = bytes_per_token
    return groups


def _sample(texts: Iterable[str]) -> list[str]:
    """The first texts that have SAMPLE_BYTES together."""
    taken, size = [], 0
    for text in texts:
        if size >= SAMPLE_BYTES:
            break
        taken.append(text)
        size += len(text.encode())
    return taken


def conversation_rows(groups: Mapping[str, Group], seed: int) -> list[dict[str, Any]]:
    """Lines of train.jsonl, shuffled."""
    taken = [
        (turn, one, name)
        for name, group in groups.items()
        for place, one in enumerate(group.conversations)
        for turn in range(group.times(place))
    ]
    return [to_row(one, name) for turn, one, name in sorted(taken, key=lambda found: _place(found[1], seed, found[0]))]


def to_row(conversation: Conversation, group: str) -> dict[str, Any]:
    return {"id": conversation.id, "kind": conversation.kind, "group": group, "messages": conversation.messages}


def text_rows(group: Group, texts: Texts) -> Iterator[dict[str, Any]]:
    """Lines of text.jsonl: plain text, as often as it is taken."""
    for turn in range(group.passes + (group.rest > 0)):
        for place, (id, text) in enumerate(texts()):
            if turn < group.times(place):
                yield {"id": id, "kind": "text", "group": "text", "text": text}


def plain_texts(documents: Iterable[Document]) -> Iterator[tuple[str, str]]:
    """(id, text) of every document that was not kept as a conversation, a long one cut; see `shorten`."""
    for document in documents:
        if '"messages"' not in document.records:
            yield document.id, shorten(document.text)


def shorten(text: str) -> str:
    """At most MAX_TEXT characters from its beginning, up to the end of a paragraph, a line or at least a word."""
    if len(text) <= MAX_TEXT:
        return text
    head = text[:MAX_TEXT]
    for border in ("\n\n", "\n", " "):
        kept = head.rpartition(border)[0].rstrip()
        if len(kept) >= MAX_TEXT // 2:
            return kept
    return head
