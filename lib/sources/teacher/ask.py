"""What a teacher is asked about a passage, and the conversation that its answer becomes.

The prompt of a kind is lib/sources/prompts/<kind>.txt, with {passage} where the passage goes. system.txt comes before
all of them: small models go astray under the system message that their own template has for want of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.completion.types import Request
from lib.params.synthesis import Synthesize
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_text
from lib.sources.teacher.passages import Passage

PROMPTS = Path(__file__).parents[1] / "prompts"
FIELDS = {"qa": ("question", "answer"), "summary": ("summary",), "rewrite": ("text",)}
# How a user may ask for the same: the model that learns has no JSON to write.
_ASKED = {
    "summary": ("Summarise this:", "Give me a short summary of the following.", "Sum this up in a sentence or two:"),
    "rewrite": ("Say this in other words:", "Rewrite the following in plain sentences.", "Rephrase this text:"),
}


class Prompt(NamedTuple):
    system: str
    text: str
    hash: str  # sha256 of both

    def about(self, passage: str) -> str:
        return self.text.replace("{passage}", passage)


def read_prompt(kind: str, folder: Path = PROMPTS) -> Prompt:
    """The prompt of a kind.

    Raises:
        SmeltError: there is no such file, or {passage} does not stand in it once.
    """
    path = folder / f"{kind}.txt"
    try:
        system, text = ((folder / name).read_text(encoding="utf-8").strip() for name in ("system.txt", path.name))
    except FileNotFoundError as error:
        raise SmeltError(f"there is no prompt {error.filename}; `git checkout` brings back ours") from None
    if text.count("{passage}") != 1:
        raise SmeltError(f"{path} must have {{passage}} in it, once: where the passage goes")
    return Prompt(system, text, hash_text(f"{system}\0{text}"))


def schema(kind: str) -> dict[str, Any]:
    """Of the answer: a JSON object with the kind's fields, each a text."""
    fields = FIELDS[kind]
    return {
        "type": "object",
        "properties": {field: {"type": "string"} for field in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


def request(kind: str, passage: Passage, prompt: Prompt, settings: Synthesize, seed: int) -> Request:
    messages = [{"role": "user", "content": prompt.about(passage.text)}]
    if prompt.system:  # some models know no system message: empty the file for them
        messages.insert(0, {"role": "system", "content": prompt.system})
    return Request(messages, settings.max_tokens, settings.temperature, seed, schema(kind))


def read_answer(kind: str, text: str) -> dict[str, str]:
    """The fields of an answer that is an instance of its schema, in the order of FIELDS, without blanks around them."""
    said = json.loads(text)
    return {field: said[field].strip() for field in FIELDS[kind]}


def conversation(kind: str, passage: Passage, answer: Mapping[str, str]) -> list[dict[str, str]]:
    """A question and its answer; or the passage with a wish, drawn by a hash of the passage, and what came of it."""
    if kind == "qa":
        asked, said = answer["question"], answer["answer"]
    else:
        wishes = _ASKED[kind]
        place = int.from_bytes(hashlib.sha256(passage.id.encode()).digest()[:8], "big") % len(wishes)
        asked, said = f"{wishes[place]}\n\n{passage.text}", answer[FIELDS[kind][0]]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
