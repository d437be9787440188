"""How much of a model is left after export: held-out text and greedy answers, beside the same model in transformers.

What is equal on every machine goes into the metrics: bits per byte, how often the likeliest token is the same, how
many answers are the same to the last token. The size of the rounding and the speed are of this machine, and go into
the run record.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.evals.bits_per_byte import Window, windows
from lib.evals.estimates import Estimate, ratio
from lib.export.runtimes import Logits, Runtime


class Sample(NamedTuple):
    """What a model is asked, in its own tokens."""

    texts: list[list[int]]  # held-out documents, each after the token that a document follows
    sizes: list[int]  # their bytes of UTF-8
    prompts: list[list[int]]  # beginnings of a chat
    answer: int  # tokens that each answer goes on for, whatever they are
    window: int  # tokens that are read at once


class Answer(NamedTuple):
    tokens: list[int]
    seconds: float  # for all but the first of them; 0 where the runtime is not timed


class Reading(NamedTuple):
    """What one runtime made of a sample."""

    bits: list[float]  # of each document
    likeliest: NDArray[np.int32]  # at each scored token
    answers: list[Answer]
    identical: int  # of the answers: each token is the likeliest in transformers too
    prompt_rate: float  # tokens of a whole window in a second; 0 without any text, and where the runtime is not timed


class Difference(NamedTuple):
    """Of logits, in their own unit."""

    largest: float
    mean_square: float


def _scored(sample: Sample) -> Iterator[tuple[int, list[int], Window]]:
    """Index of a document, the tokens of one of its windows with the one that follows, and which of them count."""
    for index, text in enumerate(sample.texts):
        for window in windows(len(text) - 1, sample.window):
            yield index, text[window.start : window.end + 1], window


def _greedy(runtime: Runtime, prompt: Sequence[int], count: int) -> Answer:
    tokens = [int(runtime.begin(prompt).argmax())]
    start = time.perf_counter()
    while len(tokens) < count:
        tokens.append(int(runtime.step(tokens[-1]).argmax()))
    return Answer(tokens, time.perf_counter() - start if runtime.timed else 0.0)


def _prompt_rate(runtime: Runtime, sample: Sample) -> float:
    longest = max(sample.texts, key=len, default=[])[: sample.window]
    if not longest or not runtime.timed:
        return 0.0
    start = time.perf_counter()
    runtime.begin(longest)
    return len(longest) / (time.perf_counter() - start)


class Reference:
    """The model in transformers, in fp32, for others to be laid beside; its logits of the texts are kept on disk.

    It writes no answers, one token after the other, but reads those of the others: an answer is its own as well if each
    token is the one that it would have written there.

    Args:
        scratch: an empty folder: 4 bytes for each token of the sample and of the vocabulary.
    """

    def __init__(self, runtime: Runtime, sample: Sample, scratch: Path) -> None:
        self._runtime, self._sample, self._folder = runtime, sample, scratch
        bits = [0.0] * len(sample.texts)
        likeliest: list[NDArray[np.int32]] = []
        for index, following_T, logits_TV, path in self._texts(runtime):
            np.save(path, logits_TV)
            bits[index] += _bits(logits_TV, following_T)
            likeliest.append(_likeliest(logits_TV))
        self.bits, self.likeliest = bits, _joined(likeliest)

    def compare(self, runtime: Runtime) -> tuple[Reading, Difference]:
        """What `runtime` makes of the same sample, and how far its logits are off."""
        sample = self._sample
        bits = [0.0] * len(sample.texts)
        likeliest: list[NDArray[np.int32]] = []
        largest = squares = 0.0
        count = 0
        for index, following_T, logits_TV, path in self._texts(runtime):
            off_TV = np.abs(logits_TV - np.load(path))
            largest = max(largest, float(off_TV.max()))
            squares += float(np.square(off_TV, dtype=np.float64).sum())
            count += off_TV.size
            bits[index] += _bits(logits_TV, following_T)
            likeliest.append(_likeliest(logits_TV))
        answers = [_greedy(runtime, prompt, sample.answer) for prompt in sample.prompts]
        own = [self._writes(prompt, answer.tokens) for prompt, answer in zip(sample.prompts, answers, strict=True)]
        return (
            Reading(bits, _joined(likeliest), answers, sum(own), _prompt_rate(runtime, sample)),
            Difference(largest, squares / max(count, 1)),
        )

    def _texts(self, runtime: Runtime) -> Iterator[tuple[int, list[int], Logits, Path]]:
        """Index of a document, a window's scored tokens, their logits by `runtime`, the file of the reference's."""
        for number, (index, tokens, window) in enumerate(_scored(self._sample)):
            logits_TV = runtime.logits(tokens[:-1])[-window.scored :]
            yield index, tokens[-window.scored :], logits_TV, self._folder / f"{number:05d}.npy"

    def _writes(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        logits_TV = self._runtime.logits([*prompt, *answer[:-1]])[-len(answer) :]
        return _likeliest(logits_TV).tolist() == list(answer)


def _likeliest(logits_TV: Logits) -> NDArray[np.int32]:
    return logits_TV.argmax(axis=1).astype(np.int32)


def _joined(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def _bits(logits_TV: Logits, next_T: Sequence[int]) -> float:
    wide_TV = logits_TV.astype(np.float64)
    largest_T = wide_TV.max(axis=1)
    log_sum_T = largest_T + np.log(np.exp(wide_TV - largest_T[:, None]).sum(axis=1))
    return float((log_sum_T - wide_TV[np.arange(len(next_T)), next_T]).sum() / math.log(2))


def agreement(one: NDArray[np.int32], other: NDArray[np.int32]) -> float | None:
    """Share of the scored tokens at which both have the same likeliest one; None without any."""
    return round(float((one == other).mean()), 4) if one.size else None


def metrics(sample: Sample, reading: Reading, reference: Reference, plain: Reading) -> dict[str, Any]:
    """What of a reading is the same on every machine.

    Args:
        plain: of the same format, not quantised.
    """
    bits = ratio(reading.bits, sample.sizes)
    # Quantisation is the same texts twice: their difference is known far better than either.
    extra = ratio([one - other for one, other in zip(reading.bits, plain.bits, strict=True)], sample.sizes)
    return {
        "bits_per_byte": _rounded(bits),
        "bits_per_byte_more": _rounded(extra),
        "top1_plain": agreement(reading.likeliest, plain.likeliest),
        "top1_transformers": agreement(reading.likeliest, reference.likeliest),
        "greedy_identical": reading.identical,
        "greedy_prompts": len(sample.prompts),
    }


def _rounded(estimate: Estimate) -> dict[str, float | None]:
    """To four digits: further ones depend on the number of threads."""
    return {
        "value": None if estimate.value is None else round(estimate.value, 4),
        "stderr": None if estimate.stderr is None else round(estimate.stderr, 4),
    }


def observed(reading: Reading, difference: Difference) -> dict[str, float]:
    """What of a reading is this machine's."""
    made = sum(len(answer.tokens) - 1 for answer in reading.answers)
    seconds = sum(answer.seconds for answer in reading.answers)
    rates = {
        "prompt_tokens_per_second": reading.prompt_rate,
        "tokens_per_second": made / seconds if made and seconds else 0.0,
    }
    return {
        "largest_difference": float(f"{difference.largest:.2g}"),
        "root_mean_square_difference": float(f"{math.sqrt(difference.mean_square):.2g}"),
        **{name: round(rate, 1) for name, rate in rates.items() if rate},
    }
