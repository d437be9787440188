"""Where training meets text: how many bytes a token stands for, and what the model makes of a few fixed prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders

from lib.params.training import Samples
from lib.pipeline.errors import SmeltError
from lib.trainers.engine import Engine

SEPARATOR = "<|endoftext|>"


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes of text that each token stands for, (V,); special tokens stand for none.

    Exact, because in a byte-level vocabulary every character of a token is one byte.

    Raises:
        SmeltError: the tokenizer is of another kind.
    """
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        raise SmeltError("bits per byte need a byte-level tokenizer, and models/tokenizer is none")
    special = tokenizer.get_added_tokens_decoder()
    sizes = [0 if i in special else len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    return np.array(sizes, np.int64)


class Sampler:
    """Continues fixed prompts greedily, to see what is learnt.

    Args:
        folder: of the tokenizer.
        turns: gives the tokens of a prompt as a user's question, up to the answer. Without it, prompts are beginnings
            of documents.
        end: the token that ends what is written.

    Attributes:
        asks: whether prompts are questions.
    """

    def __init__(
        self,
        folder: Path,
        settings: Samples,
        context_length: int,
        turns: Callable[[str], list[int]] | None = None,
        end: str = SEPARATOR,
    ) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._settings, self._length = settings, context_length
        self._begin, self._end = turns or self._beginning, self._tokenizer.token_to_id(end)
        self.every, self.asks = settings.every, turns is not None

    def __call__(self, engine: Engine) -> list[dict[str, str]]:
        return [{"prompt": prompt, "text": self._continue(engine, prompt)} for prompt in self._settings.prompts]

    def _beginning(self, prompt: str) -> list[int]:
        separator = self._tokenizer.token_to_id(SEPARATOR)
        return [separator, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]

    def _continue(self, engine: Engine, prompt: str) -> str:
        ids = self._begin(prompt)
        start = len(ids)
        while len(ids) < start + self._settings.tokens:
            token = int(engine.next_tokens(np.array([ids[-self._length :]]))[0])
            if token == self._end:
                break
            ids.append(token)
        return self._tokenizer.decode(ids[start:])
