"""`model`, `pretrain`, `decay` and `finetune`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

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
        if self.cautious and self.weight_decay and (self.optimizer == "auto" or self.optimizer.endswith("8bit")):
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


class Tuning(Optimization):
    """Of a model that is trained already: what of it, and how long."""

    method: Literal["lora", "qlora", "full"]
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    dora: bool
    rslora: bool
    epochs: Positive
    batch_rows: Positive
    precision: Literal["auto", "bf16", "fp32"]  # LoRA's products are too small to gain by fp8
    optimizer: Literal["auto", "muon", "adamw", "lion", "adamw_8bit", "paged_adamw_8bit", "lion_8bit"]
    decay_fraction: Share
    patience: Positive | None

    @model_validator(mode="after")
    def _fits_together(self) -> Tuning:
        if self.optimizer == "muon" and (self.method == "full" or self.dora):
            raise ValueError(
                "optimizer muon trains matrices alone, and full fine-tuning and DoRA train vectors as well: "
                "auto, adamw and lion train all of them"
            )
        if self.method == "full" and (self.dora or self.rslora):
            raise ValueError("dora and rslora are kinds of LoRA: they must be false with method full")
        return self


# What finetune writes, and what is made of that: none of it can be what it begins with.
_LATER = ("models/adapter", "models/sft", "models/chat", "models/export")


class Finetune(Tuning):
    base: str
    context_length: Positive | None
    max_steps: Positive | None
    samples: Samples

    @field_validator("base")
    @classmethod
    def _stays_inside(cls, base: str) -> str:
        path = PurePosixPath(base)
        if path.parts[:1] not in (("data",), ("models",)) or ".." in path.parts or str(path) in ("data", "models"):
            raise ValueError(
                f"must be a folder below data or models: models/base, data/assets/<name> or another, and not {base!r}"
            )
        if any(path.is_relative_to(later) for later in _LATER):
            raise ValueError(f"{base} is made of what finetune writes; copy it to a folder of its own first")
        return str(path)
