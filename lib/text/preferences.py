"""Pairs of answers to one prompt, one better than the other, from the ways in which datasets spell them.

Every row becomes trl's conversational form, which other trainers read as well:

    {"prompt": [{"role": "user", "content": ...}], "chosen": [{"role": "assistant", "content": ...}], "rejected": [...]}

Known are rows with the columns

    chosen, rejected        whole conversations that differ in their last answers, as messages (UltraFeedback, trl's
                            implicit prompt, ShareGPT's from and value), or as text with "Human:" and "Assistant:"
                            (Anthropic's HH-RLHF)
    the same and a prompt   in `prompt`, `conversations`, `question`, `instruction` or `input`, perhaps with `system`:
                            each as text or messages (trl, Orca, LLaMA-Factory); chosen and rejected are answers then
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Message = dict[str, str]

ANSWERS = ("chosen", "rejected")
PROMPTS = ("prompt", "conversations", "question", "instruction", "input")
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt"), "assistant"),
    "system": "system",
}
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Preferred(NamedTuple):
    """A pair, or why a row is none: then `reason` says it and the rest is empty."""

    prompt: list[Message]
    chosen: str
    rejected: str
    reason: str | None = None

    def to_row(self) -> dict[str, Any]:
        """The pair in trl's conversational form."""
        answers = {name: [{"role": "assistant", "content": getattr(self, name)}] for name in ANSWERS}
        return {"prompt": self.prompt, **answers}


def missing_columns(columns: Iterable[str]) -> str | None:
    """What a file with these columns lacks for pairs, in words; None if it has all."""
    lacking = [name for name in ANSWERS if name not in columns]
    return " and ".join(f"no column {name!r}" for name in lacking) or None


def pair(row: Mapping[str, Any]) -> Preferred:
    """The pair that a row holds.

    Reasons: not_text_or_messages, no_prompt, no_answer, other_prompts (the two conversations differ before their last
    answers), and those of `check`.
    """
    sides = [_messages(row.get(name), "assistant") for name in ANSWERS]
    prompt = _messages(next((row[name] for name in PROMPTS if row.get(name)), None), "user")
    system = _messages(row.get("system") or None, "system")
    if None in (*sides, prompt, system):
        return _none("not_text_or_messages")
    if not all(side and side[-1]["role"] == "assistant" for side in sides):
        return _none("no_answer")
    (*before, chosen), (*other, rejected) = sides
    if before != other:
        return _none("other_prompts")
    prompt = before or prompt  # a conversation that is whole repeats its prompt
    if system and prompt[:1] != system:
        prompt = [*system, *prompt]
    return check(Preferred(prompt, chosen["content"], rejected["content"]))


def check(found: Preferred) -> Preferred:
    """The pair, if it can be learnt from.

    Reasons: no_prompt (it does not end with something to answer), empty_answer, same_answers.
    """
    if not found.prompt or found.prompt[-1]["role"] != "user" or not found.prompt[-1]["content"]:
        return _none("no_prompt")
    if not found.chosen.strip() or not found.rejected.strip():
        return _none("empty_answer")
    if found.chosen.split() == found.rejected.split():
        return _none("same_answers")
    return found


def _none(reason: str) -> Preferred:
    return Preferred([], "", "", reason)


def _messages(value: Any, role: str) -> list[Message] | None:
    """Text of `role`, a text of several speakers, or messages; None if it is none of them."""
    if value is None:
        return []
    if isinstance(value, str):
        parts = _SPEAKER.split(value)
        if len(parts) > 2 and not parts[0].strip():
            speakers, texts = parts[1::2], parts[2::2]
            return [
                {"role": _ROLES[speaker.lower()], "content": text.strip()}
                for speaker, text in zip(speakers, texts, strict=True)
            ]
        return [{"role": role, "content": value.strip()}]
    if isinstance(value, Mapping):  # LLaMA-Factory's answers are one message
        value = [value]
    if not isinstance(value, list):
        return None
    found = []
    for turn in value:
        if not isinstance(turn, Mapping):
            return None
        speaker, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if speaker not in _ROLES or not isinstance(content, str):
            return None
        found.append({"role": _ROLES[speaker], "content": content.strip()})
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Choosing


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def question(prompt: Iterable[Mapping[str, str]]) -> str:
    """What is asked, for comparisons: the last message without case, marks and white space."""
    *_, last = prompt
    return "".join(character for character in last["content"].casefold() if character.isalnum())


def split(pairs: Iterable[Preferred], limit: int | None, share: float, seed: int) -> dict[str, list[Preferred]]:
    """At most `limit` pairs, shuffled, as `train` and `val`; `share` of the prompts is held out, one at least.

    Choice and order follow a hash of seed and pair, the split one of seed and prompt: all pairs of one prompt are on
    one side, and a pair more or less hardly moves the others.
    """
    ordered = sorted(pairs, key=lambda found: _key(seed, "order", found.prompt, found.chosen, found.rejected))[:limit]
    keys = [_key(seed, "split", found.prompt) for found in ordered]
    first = min(keys, default="")
    sides: dict[str, list[Preferred]] = {"train": [], "val": []}
    for found, key in zip(ordered, keys, strict=True):
        held_out = key == first or int(key[:8], 16) < share * 16**8
        sides["val" if held_out else "train"].append(found)
    return sides
