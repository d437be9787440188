"""The figures of an export, on models small enough to know what they must be."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lib.export import parity
from lib.export.parity import Reference, Sample


class Bigrams:
    """A language model by hand: the logits of the next token depend on the last one alone."""

    timed = True

    def __init__(self, table: Sequence[Sequence[float]]) -> None:
        self.table = np.array(table, np.float32)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.table[list(ids)]

    def begin(self, ids: Sequence[int]) -> np.ndarray:
        return self.table[ids[-1]]

    def step(self, token: int) -> np.ndarray:
        return self.table[token]


# After 0 comes 1 with probability 1/2, 2 and 0 with 1/4; after 1 comes 2; after 2 comes 0 or 1.
TABLE = np.log2([[1, 2, 1], [1, 1, 6], [5, 2, 1]]) * math.log(2)
SAMPLE = Sample(texts=[[0, 1, 2, 0, 1, 2, 0], [0, 2]], sizes=[10, 4], prompts=[[0], [0, 2]], answer=6, window=4)


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return Reference(Bigrams(TABLE), SAMPLE, tmp_path)


def test_bits_are_those_of_the_probabilities_whatever_the_window(reference: Reference) -> None:
    once = -np.log2([2 / 4, 6 / 8, 5 / 8]).sum()
    same, _ = reference.compare(Bigrams(TABLE))
    assert reference.bits == same.bits == pytest.approx([2 * once, 2.0])
    figures = parity.metrics(SAMPLE, same, reference, same)
    assert figures["bits_per_byte"]["value"] == round((2 * once + 2) / 14, 4)
    assert figures["bits_per_byte_more"] == {"value": 0.0, "stderr": 0.0}
    assert figures["top1_plain"] == figures["top1_transformers"] == 1.0
    assert (figures["greedy_identical"], figures["greedy_prompts"]) == (2, 2)


def test_greedy_answers_take_the_likeliest_token_and_go_on(reference: Reference) -> None:
    same, _ = reference.compare(Bigrams(TABLE))
    assert [answer.tokens for answer in same.answers] == [[1, 2, 0, 1, 2, 0], [0, 1, 2, 0, 1, 2]]


def test_another_model_is_compared_token_by_token(reference: Reference) -> None:
    table = TABLE.copy()
    table[1] = [0, 3, 0]  # after 1 comes 1
    other, difference = reference.compare(Bigrams(table))
    assert difference.largest == pytest.approx(3, abs=1e-6)
    # The row of 1 is read twice, of 8 that are scored once each.
    assert difference.mean_square == pytest.approx(2 * np.square(table[1] - TABLE[1]).sum() / (7 * 3))
    figures = parity.metrics(SAMPLE, other, reference, other)
    assert figures["top1_transformers"] == round(5 / 7, 4)
    assert figures["top1_plain"] == 1.0
    assert figures["greedy_identical"] == 0
    same, _ = reference.compare(Bigrams(TABLE))
    assert parity.metrics(SAMPLE, other, reference, same)["bits_per_byte_more"]["value"] > 0


def test_an_answer_that_parts_at_its_last_token_is_not_identical(reference: Reference) -> None:
    class Other(Bigrams):
        """Says the same, but for the last token of an answer, which it says twice."""

        def begin(self, ids: Sequence[int]) -> np.ndarray:
            self.left = SAMPLE.answer - 1
            return super().begin(ids)

        def step(self, token: int) -> np.ndarray:
            self.left -= 1
            return super().step(token) if self.left else np.eye(3, dtype=np.float32)[token]

    other, _ = reference.compare(Other(TABLE))
    assert [answer.tokens for answer in other.answers] == [[1, 2, 0, 1, 2, 2], [0, 1, 2, 0, 1, 1]]
    assert other.identical == 0


def test_a_constant_is_a_difference_of_logits_and_of_nothing_else(reference: Reference) -> None:
    other, difference = reference.compare(Bigrams(TABLE + 2))
    assert difference.largest == pytest.approx(2, abs=1e-6)
    same, _ = reference.compare(Bigrams(TABLE))
    assert parity.metrics(SAMPLE, other, reference, other) == parity.metrics(SAMPLE, same, reference, same)
    observed = parity.observed(other, difference)
    assert observed["largest_difference"] == observed["root_mean_square_difference"] == 2.0


def test_nothing_to_measure_is_no_figure(tmp_path: Path) -> None:
    empty = Sample([], [], [], 4, 8)
    reference = Reference(Bigrams(TABLE), empty, tmp_path)
    reading, _ = reference.compare(Bigrams(TABLE))
    figures = parity.metrics(empty, reading, reference, reading)
    assert figures["bits_per_byte"]["value"] is None
    assert figures["top1_plain"] is None
    assert figures["greedy_prompts"] == 0


def test_a_runtime_that_is_not_timed_has_no_speed(reference: Reference) -> None:
    class Slow(Bigrams):
        timed = False

    for runtime, rates in ((Bigrams(TABLE), 2), (Slow(TABLE), 0)):
        observed = parity.observed(*reference.compare(runtime))
        assert sum(name.endswith("tokens_per_second") for name in observed) == rates
