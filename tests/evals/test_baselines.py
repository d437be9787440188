"""Baselines against hand-computed values and the decompressors."""

import math
import random
import zlib

import numpy as np
import pytest

from lib.evals.baselines import gzip_bits_per_byte, measure_baselines, unigram_bits_per_byte, zstd_bits_per_byte


def test_unigram_by_hand() -> None:
    counts = np.array([1, 2, 0, 1])  # smoothed 2/8, 3/8, 1/8, 2/8
    bits = -2 * math.log2(2 / 8) - 2 * math.log2(3 / 8) - math.log2(1 / 8)
    assert unigram_bits_per_byte(counts, [[1, 2, 0], [1, 0]], text_bytes=10) == pytest.approx(bits / 10)


def test_unigram_of_uniform_tokens_is_their_entropy() -> None:
    documents = [list(range(256))] * 4
    assert unigram_bits_per_byte(np.full(256, 1000), documents, text_bytes=4 * 256) == pytest.approx(8)


@pytest.mark.parametrize("measure", [gzip_bits_per_byte, zstd_bits_per_byte])
def test_compressors_see_noise_as_noise_and_repetition_as_repetition(measure) -> None:
    noise = random.Random(1).randbytes(20000)
    assert measure(noise) == pytest.approx(8, rel=0.01)
    assert measure(b"smelt " * 5000) < 0.1


def test_gzip_is_deflate_at_its_best() -> None:
    text = "".join(f"{n} is followed by {n + 1}. " for n in range(2000)).encode()
    engine = zlib.compressobj(level=9, method=zlib.DEFLATED)
    assert gzip_bits_per_byte(text) == 8 * len(engine.compress(text) + engine.flush()) / len(text)


def test_nothing_held_out_gives_nulls() -> None:
    assert measure_baselines(np.ones(8), [], []) == {
        "bytes": 0,
        "documents": 0,
        "unigram_bits_per_byte": None,
        "gzip_bits_per_byte": None,
        "zstd_bits_per_byte": None,
    }
    measured = measure_baselines(np.ones(8), ["é", "a"], [[1, 0], [2, 0]])
    assert (measured["bytes"], measured["documents"], measured["unigram_bits_per_byte"]) == (3, 2, pytest.approx(4))
