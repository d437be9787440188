"""Laws: the anchors, computed by hand; what must rise rises; what is given stays."""

from __future__ import annotations

import itertools

import pytest

from lib.model.config import SIZES, ModelConfig, derive
from lib.params.training import Model, Pretrain
from lib.trainers import laws
from tests.trainers.test_optimizers import settings

NUMBERS = ("tokens", "batch_tokens", "learning_rate", "embedding_learning_rate", "head_learning_rate")


def config(size: str, vocab_size: int = 8192, context_length: int = 256, tied: bool = False) -> ModelConfig:
    shape = Model(
        size=size, context_length=context_length, rope_theta=1e4, qk_norm=True, tie_embeddings=tied, norm_eps=1e-6,
        layers=None, width=None, heads=None, kv_heads=None, feed_forward=None,
    )  # fmt: skip
    return derive(shape, vocab_size)


def asking(optimizer: str = "muon", schedule: str = "wsd", **given: object) -> Pretrain:
    return settings(optimizer, schedule=schedule, **{**dict.fromkeys(NUMBERS), **given})


def test_weights_that_multiply_are_the_matrices_and_the_head() -> None:
    """By hand, of tiny: 4 blocks of 256 wide, 2 of 4 heads for keys and values, 768 in the feed-forward."""
    block = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768
    norms = 4 * (2 * 256 + 2 * 64) + 256
    assert laws.multiplying_weights(config("tiny")) == 4 * block + 8192 * 256 + norms
    assert laws.multiplying_weights(config("tiny", tied=True)) == 4 * block + 8192 * 256 + norms


def test_batch_at_its_anchors() -> None:
    anchor = 12 * (12 * 12 * 768**2 + 32768 * 768)  # 1,321,205,760 tokens: nanochat's d12
    assert laws.batch(anchor) == pytest.approx(2**19)
    assert laws.batch(2 * anchor) == pytest.approx(2**19 * 1.304, rel=1e-3)  # "if D doubles, B grows by 1.3"
    assert laws.batch(819_200) == pytest.approx(2048)  # 400 steps


def test_rate_goes_with_the_root_of_the_batch() -> None:
    assert laws.rate(0.02, 2048, 819_200) == pytest.approx(0.02)
    assert laws.rate(0.02, 8192, 819_200) == pytest.approx(0.04)
    assert laws.rate(0.02, 512, 819_200) == pytest.approx(0.01)


def test_the_default_model_gets_what_was_measured() -> None:
    """327,680 tokens before the decay, 819,200 with it, in batches of 2,048."""
    found = laws.resolve(asking(tokens=327_680), config("tiny"))
    assert [getattr(found, name) for name in NUMBERS] == [327_680, 2048, 0.02, 0.08, 0.008]


def test_widths_lower_the_rates_of_embedding_and_head_alone() -> None:
    narrow, wide = (laws.resolve(asking(tokens=327_680), config(size)) for size in ("tiny", "1b"))  # 256 and 2,048 wide
    assert wide.learning_rate == narrow.learning_rate
    assert wide.embedding_learning_rate == pytest.approx(0.08 / 8**0.5, rel=1e-3)
    assert wide.head_learning_rate == pytest.approx(0.008 / 8**0.5, rel=1e-3)


def test_horizon_and_batch_grow_with_the_model() -> None:
    found = [laws.resolve(asking(), config(size, 32768, 2048)) for size in SIZES]
    weights = [laws.multiplying_weights(config(size, 32768, 2048)) for size in SIZES]
    order = sorted(range(len(SIZES)), key=weights.__getitem__)
    for smaller, larger in itertools.pairwise(found[place] for place in order):
        assert smaller.tokens < larger.tokens
        assert smaller.batch_tokens <= larger.batch_tokens
    assert found[order[0]].batch_tokens < found[order[-1]].batch_tokens


@pytest.mark.parametrize("size", SIZES)
def test_numbers_are_whole(size: str) -> None:
    for length in (96, 256, 2048):
        found = laws.resolve(asking(), config(size, context_length=length))
        rows, remainder = divmod(found.batch_tokens, length)
        assert rows > 0
        assert remainder == 0
        assert rows & (rows - 1) == 0
        assert found.tokens % found.batch_tokens == 0
        whole = found.tokens / laws.STABLE_SHARE["wsd"]
        assert whole == pytest.approx(laws.horizon(config(size, context_length=length)), rel=0.01)


def test_schedules_without_a_decay_of_their_own_have_the_whole_horizon() -> None:
    stable, whole = (
        laws.resolve(asking(schedule=kind, batch_tokens=2048), config("tiny")) for kind in ("wsd", "cosine")
    )
    assert stable.tokens == pytest.approx(0.4 * whole.tokens, rel=1e-3)
    assert (
        laws.resolve(asking(schedule="cosine"), config("tiny")).batch_tokens
        == laws.resolve(asking(), config("tiny")).batch_tokens
    )


GIVEN = {
    "tokens": 1_000_000,
    "batch_tokens": 768,
    "learning_rate": 0.3,
    "embedding_learning_rate": 0.4,
    "head_learning_rate": 0.5,
}


@pytest.mark.parametrize("names", [names for count in range(6) for names in itertools.combinations(NUMBERS, count)])
def test_what_is_given_stays(names: tuple[str, ...]) -> None:
    asked = asking(**{name: GIVEN[name] for name in names})
    found = laws.resolve(asked, config("tiny"))
    for name in NUMBERS:
        assert getattr(found, name) == GIVEN[name] if name in names else getattr(found, name) is not None
    lines = laws.describe(asked, config("tiny"))
    assert [line.split()[0] for line in lines] == list(NUMBERS)
    assert ["given" in line for line in lines] == [name in names for name in NUMBERS]
    assert laws.resolve(found, config("tiny")) == found


def test_every_optimizer_has_a_rate() -> None:
    rates = {kind: laws.resolve(asking(kind, cautious=False), config("tiny")).learning_rate for kind in laws.RATES}
    assert rates["muon"] > rates["adamw"] > rates["lion"]
    assert rates["adamw"] == rates["adamw_8bit"] == rates["paged_adamw_8bit"]
    assert rates["lion"] == rates["lion_8bit"]


def test_lines_say_what_was_derived_and_from_what() -> None:
    lines = laws.describe(asking(batch_tokens=2048), config("tiny"))
    assert lines[0] == "tokens 25,180,160 (derived: 4.8 for each of 5,245,696 multiplying weights)"
    assert lines[1] == "batch_tokens 2,048 (given)"
