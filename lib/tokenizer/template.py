"""Any model's chat template: messages to text in which nothing that a message says can pass for a special token.

What a message says is handed to the template with the names of special tokens defused: their first character becomes a
noncharacter. So whatever names stand in the rendered text, the template wrote; `runs` gives the defused ones back as
the characters that they are.

What the assistant is to learn is found for any template, by rendering again:

- A template that marks it (`{% generation %}`) is believed.
- Else a turn begins where the prompt for it ends: the messages before it, rendered as when the model is asked to
  answer. It ends with the first token that ends an answer after that, which no message can spell.
- A template that writes earlier messages in another way once there are later ones (and so gives the model another
  history when it is asked than it was trained on) is refused for these conversations.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import NamedTuple

from jinja2.exceptions import TemplateError

from lib.pipeline.errors import SmeltError
from lib.tokenizer.jinja import CLOSED, OPENED, compile_template

Messages = Sequence[Mapping[str, str]]

DEFUSED = "\ufdd0"
_NONCHARACTERS = re.compile(f"[{DEFUSED}{OPENED}{CLOSED}]")
_FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # of a program
_TAGS = re.compile(f"[{OPENED}{CLOSED}]")
_MARKER = re.compile(r"<\|[^|<>\s]+\|>")  # what templates call their special tokens
_PROBE = [
    {"role": "user", "content": "Qone"},
    {"role": "assistant", "content": "Aone"},
    {"role": "user", "content": "Qtwo"},
    {"role": "assistant", "content": "Atwo"},
]


class Unrenderable(SmeltError):
    """A conversation that a template cannot take, with the reason in snake_case."""

    def __init__(self, reason: str, detail: str = "") -> None:
        said = f": {detail}" if detail else ""
        super().__init__(f"the chat template cannot take a conversation ({reason}{said})")
        self.reason = reason


class Rendered(NamedTuple):
    text: str  # the names of special tokens that messages spell are defused in it
    learnt: list[tuple[int, int]]  # the parts of it that the assistant writes, each with the token that ends it


class ChatTemplate:
    """A chat template and the special tokens that it writes.

    Args:
        source: Jinja.
        names: of every added token of the tokenizer, and whether it is a special one.
        variables: what templates may use beside the messages: `bos_token`, `eos_token` and the like.

    Attributes:
        reserved: the names that no message can spell: special tokens, and others by which the template marks turns.
        missing: what the template writes that looks like a special token, and is no token of the tokenizer.

    Raises:
        SmeltError: it is no Jinja, or it cannot render a plain conversation.
    """

    def __init__(self, source: str, names: Mapping[str, bool], variables: Mapping[str, str]) -> None:
        self.source, self._variables = source, dict(variables)
        try:
            self._template = compile_template(source)
            self._names = _alternatives(names)
            shown = self._write(_PROBE[:3], prompts=False)
        except _FAILURES as error:
            raise SmeltError(f"the chat template cannot be used: {error}") from error
        # Special tokens are never text. Others (<think>, line breaks) may be, unless they are what marks the turns.
        marks = {name for name in self._names.findall(shown) if re.search(r"\w", name)}
        self.reserved = sorted(name for name, special in names.items() if special or name in marks)
        self.missing = sorted({name for name in _MARKER.findall(shown) if name not in names})
        self._names = _alternatives(self.reserved)
        self._defused = {DEFUSED + name[1:]: name for name in self.reserved}
        self._restores = _alternatives(self._defused)
        self._folds_system = not self._takes_system()

    def render(self, messages: Messages, prompts: bool = False) -> Rendered:
        """The text of a conversation; with `prompts`, up to where the assistant's next answer begins.

        Raises:
            Unrenderable: the template refuses these messages, or they have no single history.
        """
        messages = self._prepared(messages)
        text = self._try(messages, prompts)
        if OPENED in text:
            return self._marked(text)
        learnt = []
        for place, message in enumerate(messages):
            if message["role"] == "assistant" and not prompts:
                learnt.append(self._turn(text, messages[:place]))
        return Rendered(text, learnt)

    def runs(self, text: str) -> Iterator[tuple[str, int, bool]]:
        """A rendered text cut at the special tokens: (what to encode, where it starts in `text`, whether it is one)."""
        place = 0
        for match in self._names.finditer(text):
            if match.start() > place:
                yield self._restored(text[place : match.start()]), place, False
            yield match[0], match.start(), True
            place = match.end()
        if place < len(text):
            yield self._restored(text[place:]), place, False

    # -- what a template makes of messages

    def _prepared(self, messages: Messages) -> list[dict[str, str]]:
        safe = [{**message, "content": self._safe(message["content"])} for message in messages]
        if self._folds_system and safe and safe[0]["role"] == "system":
            system, *rest = safe
            if rest and rest[0]["role"] == "user":  # as transformers' own converters do for such models
                return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
        return safe

    def _write(self, messages: Messages, prompts: bool) -> str:
        return self._template.render(messages=list(messages), add_generation_prompt=prompts, **self._variables)

    def _try(self, messages: Messages, prompts: bool) -> str:
        try:
            return self._write(messages, prompts)
        except _FAILURES as error:
            raise Unrenderable("template_refuses_it", str(error)) from None

    def _marked(self, text: str) -> Rendered:
        """By the template's own marks; the token that ends an answer is learnt even where it stands behind them."""
        plain, learnt, begun = "", [], 0
        for part in re.split(f"([{OPENED}{CLOSED}])", text):
            if part == OPENED:
                begun = len(plain)
            elif part == CLOSED:
                learnt.append((begun, len(plain)))
            else:
                plain += part
        return Rendered(plain, [(start, self._with_end(plain, end)) for start, end in learnt])

    def _with_end(self, text: str, end: int) -> int:
        return next((end + len(token) for token in self.ends if text.startswith(token, end)), end)

    def _turn(self, text: str, before: Messages) -> tuple[int, int]:
        """Where in `text` the answer to the messages `before` it starts and ends."""
        prompt, history = self._try(before, True), self._try(before, False)
        # A prompt may say more than the template writes of past answers (a thought that begins): what both have.
        start = len(commonprefix([prompt, text]))  # noqa: RUF071
        if start < len(history if prompt.startswith(history) else prompt):
            raise Unrenderable("template_rewrites_history")
        found = [(place, len(end)) for end in self.ends if (place := text.find(end, start)) >= 0]
        if not found:
            raise Unrenderable("template_drops_the_end")
        place, length = min(found)
        return start, place + length

    # -- what a template is like

    def _takes_system(self) -> bool:
        try:
            text = self._write([{"role": "system", "content": "Sone"}, *_PROBE[:1]], prompts=True)
        except _FAILURES:
            return False
        return "Sone" in text

    @functools.cached_property
    def ends(self) -> tuple[str, ...]:
        """The tokens that end an answer: that of the last one, then that of earlier ones if it is another.

        Raises:
            SmeltError: an answer does not end in a token of the tokenizer, so that a model could not learn to stop.
        """
        try:
            text = _TAGS.sub("", self._write(_PROBE, prompts=False))
        except _FAILURES as error:
            raise SmeltError(f"the chat template cannot render a plain conversation: {error}") from None
        answers, ends = [turn["content"] for turn in reversed(_PROBE) if turn["role"] == "assistant"], []
        if any(text.count(answer) != 1 for answer in answers):
            raise SmeltError("the chat template leaves out or repeats an answer: it cannot be learnt from")
        for answer in answers:
            rest = text[text.index(answer) + len(answer) :].lstrip()
            token = self._names.match(rest)
            if token is None:
                shown = rest.split("\n")[0][:40]
                raise SmeltError(
                    f"the chat template ends an answer with {shown!r}, which is no token of the tokenizer: a model "
                    f"could not learn to stop. The template is that of another tokenizer, or its tokens were not added"
                    if shown
                    else "the chat template writes nothing after an answer: a model could not learn to stop"
                )
            ends.append(token[0])
        return tuple(dict.fromkeys(ends))

    def _safe(self, content: str) -> str:
        content = _NONCHARACTERS.sub("\ufffd", content)
        while self._names.search(content):  # again, because a name may hold another
            content = self._names.sub(lambda match: DEFUSED + match[0][1:], content)
        return content

    def _restored(self, text: str) -> str:
        before = ""
        while DEFUSED in text and text != before:
            before, text = text, self._restores.sub(lambda match: self._defused[match[0]], text)
        return text


def _alternatives(names: Iterable[str]) -> re.Pattern[str]:
    """Any of the names, the longest first; with none, what never matches."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
