"""Bytes of tokens, and samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders

from lib.params.training import Samples
from lib.pipeline.errors import SmeltError
from lib.trainers.text import Sampler, token_bytes
from tests.tokenizer.conftest import folder, tokenizer  # noqa: F401
from tests.trainers.test_loop import CONFIG, trainer


@pytest.mark.parametrize("text", ["Rain in 1804.", "naïve œuvre — 東京 🙂\n\n", "", " \t "])
def test_bytes_of_a_text_are_the_sum_over_its_tokens(tokenizer: Tokenizer, text: str) -> None:  # noqa: F811
    sizes = token_bytes(tokenizer)
    ids = tokenizer.encode(text).ids
    assert sizes[ids].sum() == len(text.encode())
    assert sizes.shape == (tokenizer.get_vocab_size(),)
    assert sizes[tokenizer.token_to_id("<|endoftext|>")] == 0


def test_another_kind_of_tokenizer_is_refused(tokenizer: Tokenizer) -> None:  # noqa: F811
    other = Tokenizer.from_str(tokenizer.to_str())
    other.decoder = decoders.Metaspace()
    with pytest.raises(SmeltError, match="byte-level"):
        token_bytes(other)


def test_validation_in_bits_per_byte(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=5)
    loss, none = run.validate()
    assert none is None
    sizes = np.arange(CONFIG.vocab_size)
    object.__setattr__(run._task, "token_bytes", sizes)
    labels = run._task.val.rows(np.arange(4)).labels
    assert run.validate()[1] == pytest.approx(loss * labels.size / math.log(2) / sizes[labels].sum())


class Reciting:
    """An engine that says the tokens of a text, one after the other, and keeps what it was given."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.given = ids, []

    def next_tokens(self, tokens_BT: np.ndarray) -> np.ndarray:
        self.given.append(tokens_BT.tolist()[0])
        return np.array([self.ids[len(self.given) - 1]])


def test_samples_begin_like_a_document_and_end_with_it(tokenizer: Tokenizer, folder: Path) -> None:  # noqa: F811
    prompt, ids = tokenizer.encode("Rain in").ids, tokenizer.encode(" 1804.").ids
    separator = tokenizer.token_to_id("<|endoftext|>")
    engine = Reciting([*ids, separator, 5])
    sampler = Sampler(folder, Samples(every=1, tokens=50, prompts=["Rain in"]), context_length=4)
    assert sampler(engine) == [{"prompt": "Rain in", "text": " 1804."}]
    assert engine.given[0] == [separator, *prompt][-4:]
    assert all(len(given) <= 4 for given in engine.given)
    short = Sampler(folder, Samples(every=1, tokens=2, prompts=["Rain in"]), context_length=4)
    assert short(Reciting(ids))[0]["text"] == tokenizer.decode(ids[:2])


def test_the_next_token_is_the_likeliest(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=60)
    run.fit()
    counted = np.arange(12)[None] + np.array([[0], [9]])  # it has learnt to count
    assert run._engine.next_tokens(counted % CONFIG.vocab_size).tolist() == [12, 21]


def test_questions_are_asked_as_turns_and_answered_to_their_end(tokenizer: Tokenizer, folder: Path) -> None:  # noqa: F811
    ids, end = tokenizer.encode(" 1804.").ids, tokenizer.token_to_id("<|im_end|>")
    engine = Reciting([*ids, end, 5])
    samples = Samples(every=1, tokens=50, prompts=["When?"])
    sampler = Sampler(folder, samples, 99, turns=lambda prompt: [7, len(prompt), 8], end="<|im_end|>")
    assert sampler(engine) == [{"prompt": "When?", "text": " 1804."}]
    assert engine.given[0] == [7, 5, 8]
    assert sampler.asks
