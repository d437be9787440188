"""A chat model in a GGUF file, run by llama.cpp, whose prompts no text can forge.

llama-cpp-python's own chat completion renders the whole conversation to one string and reads special tokens in it, so
that a message with `<|im_end|>` in it would end itself. Here the template is rendered around placeholders: what the
template wrote is read with special tokens, what the messages say is not.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TypedDict

import llama_cpp
import numpy as np
from llama_cpp import LlamaGrammar
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.llama_grammar import json_schema_to_gbnf

from lib.pipeline.errors import SmeltError

_PLACEHOLDER = "\uf8ff{}\uf8ff"  # a private-use character: no template writes it


class Message(TypedDict):
    role: str  # system, user or assistant
    content: str


def _metadata(path: Path) -> dict[str, str]:
    # Loading no weights, llama.cpp warns that it knows of no context length.
    with Path(os.devnull).open("w") as silence, redirect_stderr(silence):
        return llama_cpp.Llama(str(path), vocab_only=True, verbose=False).metadata


def _grammar(schema: Mapping[str, Any]) -> LlamaGrammar:
    """llama-cpp-python's own lets line ends and control characters into strings, which JSON does not (RFC 8259, 7)."""
    rules = json_schema_to_gbnf(json.dumps(schema))
    return LlamaGrammar.from_string(rules.replace(r'char ::= [^"\\]', r'char ::= [^"\\\x00-\x1F\x7F]'), verbose=False)


class ChatModel:
    """A GGUF file with a chat template.

    Args:
        context: tokens of prompt and answer together, at most; never more than the model was trained for.
        seed: of the sampling.

    Raises:
        SmeltError: the file cannot be read, or has no chat template.
    """

    def __init__(self, path: Path, context: int, seed: int) -> None:
        if not path.is_file():
            raise SmeltError(f"there is no model {path}")
        try:
            metadata = _metadata(path)
            trained = int(metadata[f"{metadata['general.architecture']}.context_length"])
            self.context = min(context, trained)
            cores = len(os.sched_getaffinity(0))
            self._llama = llama_cpp.Llama(
                str(path), n_ctx=self.context, n_threads=cores, n_threads_batch=cores, seed=seed, verbose=False
            )
        except (ValueError, KeyError) as error:
            raise SmeltError(f"llama.cpp cannot load {path}: {error}") from None
        if "tokenizer.chat_template" not in metadata:
            raise SmeltError(f"{path} has no chat template: it is a base model, and cannot chat")
        self._vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        bos, eos = self._llama.token_bos(), self._llama.token_eos()
        self._template = Jinja2ChatFormatter(
            metadata["tokenizer.chat_template"], eos_token=self._text(eos), bos_token=self._text(bos)
        )
        self._bos = [bos] if llama_cpp.llama_vocab_get_add_bos(self._vocab) else []

    def _text(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode() if token >= 0 else ""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation and the beginning of an answer, by the model's own template.

        Raises:
            SmeltError: the template does not write every message once, in order and as it is.
        """
        blanks = [{**message, "content": _PLACEHOLDER.format(at)} for at, message in enumerate(messages)]
        try:
            rendered = self._template(messages=blanks).prompt
        except ValueError as error:  # some know no system message, or want turns to alternate
            raise SmeltError(f"the model's chat template refuses these messages: {error}") from error
        parts = re.split(_PLACEHOLDER.format(r"(\d+)"), rendered)
        if parts[1::2] != [str(at) for at in range(len(messages))]:
            raise SmeltError("the model's chat template leaves out or repeats messages")
        ids: list[int] = []
        for at, part in enumerate(parts):
            if at % 2:
                ids += self._tokenize(messages[int(part)]["content"].strip(), special=False)
            else:
                ids += self._tokenize(part, special=True)
        return ids if ids[:1] == self._bos else self._bos + ids

    def _tokenize(self, text: str, special: bool) -> list[int]:
        return self._llama.tokenize(text.encode(errors="replace"), add_bos=False, special=special)

    def stream(self, ids: Sequence[int], max_tokens: int, temperature: float) -> Iterator[str]:
        """The answer to `ids`, piece by piece as it is made; ended by the model, `max_tokens` or the context.

        Args:
            temperature: 0 always takes the likeliest token.
        """
        return self._decode(self._tokens(self._llama.generate(list(ids), temp=temperature), len(ids), max_tokens))

    def complete(
        self,
        ids: Sequence[int],
        max_tokens: int,
        temperature: float,
        seed: int,
        schema: Mapping[str, Any] | None,
    ) -> tuple[str, int, bool]:
        """The answer to `ids`, the number of its tokens, and whether the model ended it.

        It depends on these arguments alone, and not on what was asked before: nothing of an earlier prompt is kept,
        as a prompt that is read in other pieces has other logits by a rounding.

        Args:
            schema: JSON schema. The answer is JSON of this form, or a beginning of it; bounds of numbers and patterns
                are not kept to.

        Raises:
            SmeltError: llama.cpp cannot make a grammar of the schema.
        """
        try:
            grammar = None if schema is None else _grammar(schema)
        except Exception as error:
            raise SmeltError(f"llama.cpp cannot follow the JSON schema {json.dumps(schema)}: {error}") from error
        self._llama.reset()
        self._llama.set_seed(seed)
        tokens = list(
            self._tokens(self._llama.generate(list(ids), temp=temperature, grammar=grammar), len(ids), max_tokens)
        )
        return "".join(self._decode(tokens)), len(tokens), len(tokens) < min(max_tokens, self.context - len(ids))

    def log_probabilities(self, ids: Sequence[int], beginning: str, options: Sequence[str]) -> dict[str, float]:
        """Log-probability, in nats, of each option as what follows the `beginning` of the answer to `ids`.

        As `complete`, it depends on these arguments alone.

        Raises:
            SmeltError: an option is not a single token.
        """
        tokens = {option: self._tokenize(option, special=False) for option in options}
        if long := [option for option, found in tokens.items() if len(found) != 1]:
            raise SmeltError(f"the model's vocabulary has no token for {', '.join(map(repr, long))}")
        self._llama.reset()
        self._llama.eval([*ids, *self._tokenize(beginning, special=False)])
        logits_V = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._llama.ctx, -1), (self._llama.n_vocab(),))
        shifted_V = logits_V.astype(np.float64) - logits_V.max()
        total = np.log(np.exp(shifted_V).sum())
        return {option: float(shifted_V[token] - total) for option, (token,) in tokens.items()}

    def _tokens(self, generated: Iterator[int], prompt: int, max_tokens: int) -> Iterator[int]:
        for _, token in zip(range(min(max_tokens, self.context - prompt)), generated, strict=False):
            if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                break
            yield token

    def _decode(self, tokens: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character may span tokens
        for token in tokens:
            yield decoder.decode(self._llama.detokenize([token]))
        yield decoder.decode(b"", final=True)
