"""Laws that give the numbers of pretraining that params.yaml leaves null, from the model's shape.

Every law is anchored where its number was measured, and says how it moves from there:

    horizon     12 tokens per weight that multiplies (matrices and head); the stable part of WSD is 40% of it
    batch       2^19 tokens at the horizon of a 12-layer model of 110M such weights, as the horizon to the power 0.383,
                and never so many that a run has fewer than 400 steps
    rates       as the square root of the batch, from what was measured with the batch that this law gives; those of
                embedding and head also as the width to the power -1/2

Sources: nanochat (https://github.com/karpathy/nanochat, scripts/base_train.py), whose anchors and exponents these are
but for the rates and the floor on the steps (see there); Power Lines for the batch (Bergsma et al. 2025,
https://arxiv.org/abs/2505.13738). OLMo's ladder (https://github.com/allenai/OLMo-core) has other forms of the same:
20 tokens per weight, a batch as the weights to the power 2/3, a rate as their power -1/3.
"""

from __future__ import annotations

import math

from lib.model.config import ModelConfig
from lib.params.training import Pretrain

TOKENS_PER_WEIGHT = 12
# A decay of 60% of the whole measured best on short runs. The law does not look at the decay, so that a sweep over its
# length has one stable run.
STABLE_SHARE = {"wsd": 0.4, "cosine": 1.0, "constant": 1.0}

ANCHOR_WEIGHTS = 12 * 12 * 768**2 + 32768 * 768  # nanochat's d12: matrices and head, 110M
ANCHOR_BATCH = 2**19
BATCH_EXPONENT = 0.383
MIN_STEPS = 400

# Of 5M weights with a batch of 2,048 tokens. nanochat has 0.02 for Muon, too, at 2^19 tokens.
RATES = {
    "muon": 0.02,
    "adamw": 0.004,
    "adamw_8bit": 0.004,
    "paged_adamw_8bit": 0.004,
    "lion": 0.001,
    "lion_8bit": 0.001,
}
EMBEDDING_RATE, HEAD_RATE, ANCHOR_WIDTH = 0.08, 0.008, 256


def multiplying_weights(config: ModelConfig) -> int:
    """Weights that take part in a matrix product for every token: all but an untied embedding.

    Of the ways to count weights, the one with which the best ratio of tokens to weights stays the same across sizes, by
    nanochat's measurements.
    """
    return config.parameters - (0 if config.tie_embeddings else config.vocab_size * config.width)


def horizon(config: ModelConfig) -> int:
    """Tokens of the whole run that make the best use of its FLOPs."""
    return TOKENS_PER_WEIGHT * multiplying_weights(config)


def batch(tokens: int) -> float:
    """Tokens per step for a horizon of `tokens`."""
    anchor = TOKENS_PER_WEIGHT * ANCHOR_WEIGHTS
    return min(ANCHOR_BATCH * (tokens / anchor) ** BATCH_EXPONENT, tokens / MIN_STEPS)


def rate(peak: float, batch_tokens: int, tokens: int) -> float:
    """A peak rate for a batch of so many tokens: as its square root, and `peak` at the batch of the law.

    nanochat takes the root from 2^19 tokens whatever the horizon. That gives a sixteenth of the rate that is best with
    2,048 tokens on a short run, whose noise a long one would average away.
    """
    return peak * math.sqrt(batch_tokens / batch(tokens))


def resolve(settings: Pretrain, config: ModelConfig) -> Pretrain:
    """The settings with a number in place of every None. Numbers that are given stay as they are.

    `tokens` becomes a multiple of `batch_tokens`, that one of the context length, by a power of two.
    """
    share, length = STABLE_SHARE[settings.schedule], config.context_length
    total = horizon(config) if settings.tokens is None else settings.tokens / share
    batch_tokens = settings.batch_tokens
    if batch_tokens is None:
        batch_tokens = length * 2 ** max(0, round(math.log2(batch(total) / length)))
    width = math.sqrt(ANCHOR_WIDTH / config.width)
    derived = {
        "batch_tokens": batch_tokens,
        "tokens": batch_tokens * max(1, round(total * share / batch_tokens)),
        "learning_rate": rate(RATES[settings.optimizer], batch_tokens, total),
        "embedding_learning_rate": rate(EMBEDDING_RATE * width, batch_tokens, total),
        "head_learning_rate": rate(HEAD_RATE * width, batch_tokens, total),
    }
    # A rate is given with four digits: the rest would be of the platform's square root.
    return settings.model_copy(
        update={
            name: value if isinstance(value, int) else float(f"{value:.4g}")
            for name, value in derived.items()
            if getattr(settings, name) is None
        }
    )


def describe(given: Pretrain, config: ModelConfig) -> list[str]:
    """A line for each number that a law could give: whether it did, and from what."""
    resolved = resolve(given, config)
    weights, length = multiplying_weights(config), config.context_length
    sources = {
        "tokens": f"{TOKENS_PER_WEIGHT * STABLE_SHARE[given.schedule]:g} for each of {weights:,} multiplying weights",
        "batch_tokens": f"from the horizon, in rows of {length}",
        "learning_rate": f"{given.optimizer}'s, from batch and horizon",
        "embedding_learning_rate": f"from batch, horizon and width {config.width}",
        "head_learning_rate": f"from batch, horizon and width {config.width}",
    }
    return [
        f"{name} {getattr(resolved, name):,} ({'given' if getattr(given, name) is not None else 'derived: ' + source})"
        for name, source in sources.items()
    ]
