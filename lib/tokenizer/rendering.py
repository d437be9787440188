"""The one way from messages to token ids: for training, evaluation and whoever else asks a model by its template.

The ids are those of transformers' `apply_chat_template` and of llama.cpp, for every conversation in which no message
spells a special token. Where one does, theirs become control tokens, and here they stay the characters that they are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lib.pipeline.errors import SmeltError
from lib.tokenizer.chat_template import CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, START_OF_TURN
from lib.tokenizer.template import DEFUSED, ChatTemplate, Messages, Rendered, Unrenderable


class ChatRenderer:
    """Encodes conversations by a model's own template.

    Args:
        tokenizer: tokenizer.json.
        template: Jinja; None where the model has none: it gets ChatML if it has the tokens for that.
        variables: `bos_token`, `eos_token` and the like, as templates use them.

    Attributes:
        template: what is rendered.
        pad: id of the token that fills rows up; no loss and no attention is on it.

    Raises:
        SmeltError: the template is unusable, or the tokenizer lacks its tokens.
    """

    def __init__(self, tokenizer: str, template: str | None, variables: Mapping[str, str]) -> None:
        # Offsets are then those of whole tokens: ByteLevel as a post-processor would trim their spaces off.
        content = json.loads(tokenizer) | {"post_processor": None, "truncation": None, "padding": None}
        added = content["added_tokens"]
        names = {token["content"]: token["special"] for token in added}
        if template is None:
            lacking = [name for name in (START_OF_TURN, END_OF_TURN) if name not in names]
            if lacking:
                raise SmeltError(
                    f"the base model has no chat template, and its tokenizer has no {' and no '.join(lacking)} for "
                    f"ChatML. Take a base that was made for chat, or add a template and its tokens to the base"
                )
            template = CHAT_TEMPLATE
        self.template = ChatTemplate(template, names, variables)
        self._tokenizer = Tokenizer.from_str(json.dumps(content))
        # Encodes the name of any added token as the characters it is made of.
        plain = content | {"added_tokens": [token | {"special": True} for token in added]}
        self._plain = Tokenizer.from_str(json.dumps(plain))
        self._plain.encode_special_tokens = True
        # Of plain text: as the base model was trained on it, but for the names of special tokens.
        self._text = Tokenizer.from_str(json.dumps(content))
        self._text.encode_special_tokens = True
        self._reserved = {self._id(name) for name in self.template.reserved}
        self._variables = dict(variables)
        self.pad = next(
            (id for key in ("pad_token", "eos_token") if (id := self._id(variables.get(key))) is not None), 0
        )

    @classmethod
    def from_folder(cls, folder: Path) -> ChatRenderer:
        """By the tokenizer and the template of a Hugging Face directory.

        Raises:
            SmeltError: see above; with the folder's name.
        """
        config = _read_json(folder / "tokenizer_config.json")
        try:
            renderer = cls(
                (folder / "tokenizer.json").read_text(encoding="utf-8"),
                template_of(folder, config),
                token_names(_read_json(folder / "special_tokens_map.json") | config),
            )
            assert renderer.template.ends  # raises where answers have none
            return renderer
        except SmeltError as error:
            raise SmeltError(f"{folder}: {error}") from None

    @classmethod
    def from_transformers(cls, tokenizer: Any) -> ChatRenderer:
        """By a fast tokenizer of transformers, which has read a GGUF file, for example."""
        template = tokenizer.chat_template
        variables = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        return cls(
            tokenizer.backend_tokenizer.to_str(),
            template["default"] if isinstance(template, dict) else template,
            variables,
        )

    def encode(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """Encode a conversation and mark the tokens that the assistant is to learn.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": ...}`, in order.

        Returns:
            Token ids, and for each whether the loss is on it: what the assistant writes in each of its turns, the token
            that ends it included, and not what the template supplies when the model is used.

        Raises:
            Unrenderable: the template cannot take this conversation.
        """
        rendered = self.template.render(messages)
        ids, spans = self._encode(rendered)
        learn = bytearray(len(rendered.text) + 1)
        for start, end in rendered.learnt:
            learn[start:end] = b"\1" * (end - start)
        return ids, [any(learn[start : max(end, start + 1)]) for start, end in spans]

    def prompt(self, messages: Messages) -> list[int]:
        """Token ids of a conversation up to where the assistant's next answer begins.

        Raises:
            Unrenderable: as `encode`.
        """
        return self._encode(self.template.render(messages, prompts=True))[0]

    def text(self, text: str) -> list[int]:
        """Token ids of a document between the tokens that documents stand between, where the tokenizer has such."""
        ids = self._text.encode(text, add_special_tokens=False).ids
        begin, end = self._borders
        return [*begin, *ids, *end]

    @functools.cached_property
    def _borders(self) -> tuple[list[int], list[int]]:
        """What a document follows and what ends it; a token that ends turns does not end documents."""
        if (separator := self._id(END_OF_TEXT)) is not None:
            return [separator], [separator]
        begin, end = (self._variables.get(key) for key in ("bos_token", "eos_token"))
        ids = ([self._id(begin or end)], [None if end in self.template.ends else self._id(end)])
        return tuple([id for id in border if id is not None] for border in ids)

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)

    def _encode(self, rendered: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the characters of the rendered text that each stands for."""
        text = rendered.text
        if DEFUSED not in text:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            found = sum(id in self._reserved for id in encoding.ids)
            if found != sum(reserved for *_, reserved in self.template.runs(text)):
                raise Unrenderable("spells_a_special_token")  # some tokenizers fold characters before they look
            return encoding.ids, encoding.offsets
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for run, place, reserved in self.template.runs(text):
            encoding = (self._tokenizer if reserved else self._plain).encode(run, add_special_tokens=False)
            ids += encoding.ids
            spans += [(place + start, place + end) for start, end in encoding.offsets]
        return ids, spans


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def template_of(folder: Path, config: dict[str, Any]) -> str | None:
    """In a file of its own, as in newer directories, or in the configuration, where there may be several by name."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        return next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template


def token_names(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like: texts, or objects that have it as their content."""
    found = {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}
    return {key: value for key, value in found.items() if key.endswith("_token") and isinstance(value, str)}
