"""`preferences` and `prefer`: pairs of answers, one better than the other, and what is learnt from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from lib.params.training import Tuning
from lib.params.values import Name, Positive, Rate, Section

PreferenceLoss = Literal["dpo", "orpo"]


class Answers(Section):
    kinds: Annotated[list[Name], Field(min_length=1)]
    tasks: Positive
    max_new_tokens: Positive


class Sampled(Section):
    kinds: Annotated[list[Name], Field(min_length=1)]
    tasks: Positive
    max_new_tokens: Positive
    temperature: Annotated[float, Field(gt=0, le=2)]


class Preferences(Section):
    model_config = ConfigDict(serialize_by_alias=True)

    # Called `from` in params.yaml, a word that Python keeps for itself.
    origin: Annotated[Literal["files", "answers", "judge"] | None, Field(alias="from")]
    limit: Positive | None
    val: Rate
    answers: Answers
    judge: Sampled


class Prefer(Tuning):
    loss: PreferenceLoss
    beta: Annotated[float, Field(gt=0)]
