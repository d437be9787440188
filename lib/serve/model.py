"""A chat model as the server uses it: OpenAI's sampling settings, probabilities, prompts read once, and a way to stop.

An answer depends on its request alone, whatever was asked before. llama.cpp keeps what it has read, and reading on from
there is what makes a conversation's next turn quick; but a prompt that is read in other pieces has other logits by a
rounding, and now and then another answer. So a prompt is read in blocks of `_BLOCK` tokens from its beginning, and only
whole blocks that an earlier prompt was read in are kept, never what the model wrote itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
from llama_cpp import LlamaGrammar

from lib.completion.chat_model import ChatModel, _grammar
from lib.pipeline.errors import SmeltError
from lib.serve.schema import check

_BLOCK = 128
_LEAST = -9999.0  # OpenAI's for what cannot be; JSON has no infinity


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Sampling(NamedTuple):
    temperature: float  # 0 always takes the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    frequency_penalty: float = 0.0  # of tokens of the answer, not of the prompt; so are the next two
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0  # below 2**32 - 1, which llama.cpp takes for "any"


class Token(NamedTuple):
    id: int
    text: bytes  # a character may span tokens
    logprob: float | None  # nats, before any sampling setting; None where nobody asked
    likeliest: list[tuple[bytes, float]]  # the same of the likeliest tokens, best first


class ServedModel(ChatModel):
    """A GGUF file that writes answers token by token. One at a time, from one thread; `encode` from any."""

    _blocks: int = 0  # tokens at the beginning of llama.cpp's memory that were read in whole blocks

    def tokens(
        self,
        ids: Sequence[int],
        max_tokens: int,
        sampling: Sampling,
        grammar: LlamaGrammar | None = None,
        likeliest: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Token]:
        """The answer to `ids`, at most `max_tokens`; fewer where the model ends it.

        Args:
            ids: not empty, and with `max_tokens` within the context.
            likeliest: give probabilities, and those of so many of the likeliest tokens.
            stopped: asked between blocks of the prompt and between tokens.

        Raises:
            Stopped: it said so.
        """
        self._read(ids, stopped)
        self._llama.set_seed(sampling.seed)
        generated = self._llama.generate(
            ids,
            temp=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            repeat_penalty=sampling.repeat_penalty,
            grammar=grammar,
        )
        with closing(generated):
            for _, token in zip(range(max_tokens), generated, strict=False):
                if stopped():
                    raise Stopped
                if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                    return
                probabilities = (None, []) if likeliest is None else self._probabilities(token, likeliest)
                yield Token(token, self._llama.detokenize([token]), *probabilities)

    def grammar(self, schema: Mapping[str, Any]) -> LlamaGrammar:
        """What holds an answer to a JSON schema that a stranger may have written.

        Raises:
            SmeltError: see lib/serve/schema.py; or llama.cpp cannot follow it.
        """
        check(schema)
        try:
            grammar = _grammar(schema)
        except Exception as error:
            raise SmeltError(f"llama.cpp cannot follow the JSON schema: {error}") from error
        # llama-cpp-python does not look whether there is a sampler, and llama.cpp then reads address 0.
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, grammar._grammar.encode(), grammar._root.encode())
        if not sampler:
            raise SmeltError("llama.cpp cannot follow the JSON schema")
        llama_cpp.llama_sampler_free(sampler)
        return grammar

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text to go on with. The name of a special token in it is the characters it is made of."""
        return self._bos + self._tokenize(text, special=False)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._llama.n_vocab()

    def _read(self, ids: Sequence[int], stopped: Callable[[], bool]) -> None:
        """Read the prompt but for its last block, which `generate` reads."""
        last = (len(ids) - 1) // _BLOCK * _BLOCK
        most = min(self._blocks, last)
        known = np.asarray(self._llama.input_ids[:most])
        same = int(np.cumprod(known == np.asarray(ids[:most], known.dtype)).sum())
        kept = same // _BLOCK * _BLOCK
        memory = llama_cpp.llama_get_memory(self._llama.ctx)
        if not (kept and llama_cpp.llama_memory_seq_rm(memory, -1, kept, -1)):  # some models cannot forget a part
            llama_cpp.llama_memory_clear(memory, True)
            kept = 0
        self._llama.n_tokens = self._blocks = kept
        for start in range(kept, last, _BLOCK):
            if stopped():
                raise Stopped
            self._llama.eval(ids[start : start + _BLOCK])
            self._blocks = start + _BLOCK

    def _probabilities(self, token: int, likeliest: int) -> tuple[float, list[tuple[bytes, float]]]:
        logits_V = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._llama.ctx, -1), (self.vocabulary,))
        shifted_V = logits_V.astype(np.float64) - logits_V.max()
        shifted_V = np.maximum(shifted_V - np.log(np.exp(shifted_V).sum()), _LEAST)
        best = np.argpartition(shifted_V, -likeliest)[-likeliest:] if likeliest else np.empty(0, int)
        best = best[np.argsort(-shifted_V[best], kind="stable")]
        texts = [self._llama.detokenize([int(other)]) for other in best]
        return float(shifted_V[token]), list(zip(texts, map(float, shifted_V[best]), strict=True))
