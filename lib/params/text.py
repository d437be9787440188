"""`dedup`, `mix`, `tokenizer`, `encode` and `chat`: what happens to documents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from lib.params.values import NotNegative, Positive, Rate, Section


class Dedup(Section):
    ngram: Positive
    buckets: Positive
    hashes_per_bucket: Positive


class Mix(Section):
    tokens: Positive
    val: Rate
    test: Rate

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Mix:
        if self.val + self.test > 0.5:
            raise ValueError(
                f"val and test hold out {self.val + self.test:.0%} of the documents; at most 50% is sensible"
            )
        return self


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(ge=512, le=1_000_000)]


class Encode(Section):
    shard_tokens: Annotated[int, Field(ge=1024)]


class Chat(Section):
    manual: NotNegative | None
    encyclopedia: NotNegative | None
    yes_no: NotNegative | None
