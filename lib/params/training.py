"""`model`, `pretrain`, `decay` and `finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lib.params.values import Commit, Name, NotNegative, Positive, Rate, Section, Share


class Model(Section):
    size: Name
    context_length: Annotated[int, Field(ge=16)]
    rope_theta: Annotated[float, Field(gt=0)]
    qk_norm: bool
    tie_embeddings: bool
    norm_eps: Annotated[float, Field(gt=0, lt=0.1)]
    layers: Positive | None
    width: Positive | None
    heads: Positive | None
    kv_heads: Positive | None
    feed_forward: Positive | None


class Guards(Section):
    window: Annotated[int, Field(ge=16)]
    sigma: Annotated[float, Field(gt=0)]
    action: Literal["skip", "rollback"]
    limit: Positive


class Samples(Section):
    every: Positive
    tokens: Positive
    prompts: list[Annotated[str, Field(min_length=1)]]


class Optimization(Section):
    optimizer: Literal["muon", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    betas: tuple[Rate, Rate]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    warmup_steps: NotNegative
    checkpoint_every: Positive
    log_every: Positive
    validate_every: Positive
    validate_rows: Positive


class Pretrain(Optimization):
    embedding_learning_rate: Annotated[float, Field(gt=0, le=1)]
    head_learning_rate: Annotated[float, Field(gt=0, le=1)]
    tokens: Positive
    batch_tokens: Positive
    extend_from: Commit | None
    samples: Samples


class Decay(Section):
    fraction: Annotated[float, Field(ge=0, lt=1)]


class Finetune(Optimization):
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    epochs: Positive
    batch_rows: Positive
    decay_fraction: Share
