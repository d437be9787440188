"""`model`, `pretrain`, `decay` and `finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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


Precision = Literal["auto", "bf16", "fp32", "fp8"]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Guards(Section):
    window: Annotated[int, Field(ge=16)]
    sigma: Annotated[float, Field(gt=0)]
    action: Literal["skip", "rollback"]
    limit: Positive


class Samples(Section):
    every: Positive
    tokens: Positive
    prompts: list[Annotated[str, Field(min_length=1)]]


class Muon(Section):
    momentum: tuple[Rate, Rate]
    momentum_steps: NotNegative
    iterations: Literal[3, 4, 5]


class Lion(Section):
    betas: tuple[Rate, Rate]


class Optimization(Section):
    precision: Precision
    activation_checkpointing: bool
    optimizer: Literal["muon", "adamw", "lion", "adamw_8bit", "paged_adamw_8bit", "lion_8bit"]
    learning_rate: LearningRate
    muon: Muon
    lion: Lion
    betas: tuple[Rate, Rate]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    cautious: bool
    clip_norm: Annotated[float, Field(gt=0)]
    schedule: Literal["wsd", "cosine", "constant"]
    warmup_steps: NotNegative
    checkpoint_every: Positive
    log_every: Positive
    validate_every: Positive
    validate_rows: Positive

    @model_validator(mode="after")
    def _can_be_cautious(self) -> Optimization:
        if self.cautious and self.weight_decay and self.optimizer.endswith("8bit"):
            raise ValueError(
                f"cautious must be false for weight decay with {self.optimizer}: bitsandbytes does not show an update "
                f"before it is made. muon, adamw and lion can be cautious"
            )
        return self


class Pretrain(Optimization):
    """What is None, lib/trainers/laws.py derives from the model's size."""

    learning_rate: LearningRate | None
    embedding_learning_rate: LearningRate | None
    head_learning_rate: LearningRate | None
    tokens: Positive | None
    batch_tokens: Positive | None
    extend_from: Commit | None
    samples: Samples

    @model_validator(mode="after")
    def _can_be_extended(self) -> Pretrain:
        if self.extend_from and self.schedule == "cosine":
            raise ValueError(
                "extend_from needs a schedule that does not know its horizon, wsd or constant: the rate of a cosine is "
                "zero where the run to go on from ended"
            )
        return self


class Decay(Section):
    fraction: Annotated[float, Field(ge=0, lt=1)]


class Finetune(Optimization):
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    epochs: Positive
    batch_rows: Positive
    precision: Literal["auto", "bf16", "fp32"]  # LoRA's products are too small to gain by fp8
    decay_fraction: Share
