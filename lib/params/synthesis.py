"""`synthesize`: what a teacher writes from the documents, and what of it may be learnt from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lib.params.completion import ChatEndpoint
from lib.params.values import Name, NotNegative, Positive, Section, Share

Kind = Literal["qa", "summary", "rewrite"]


class PassageWords(Section):
    least: Positive
    most: Positive

    @model_validator(mode="after")
    def _are_ordered(self) -> PassageWords:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}; it must not be larger than most ({self.most})")
        return self


class MinWords(Section):
    question: Positive
    answer: Positive
    summary: Positive
    text: Positive


class Checks(Section):
    min_words: MinWords
    copied_run: Annotated[int, Field(ge=3)]
    copied_share: Share
    summary_share: Share
    rewrite_share: Share
    support: Share


class Synthesize(Section):
    sources: dict[Name, NotNegative | None]
    kinds: Annotated[list[Kind], Field(min_length=1)]
    passage_words: PassageWords
    max_tokens: Positive
    temperature: Annotated[float, Field(ge=0, le=2)]
    checks: Checks
    teacher: ChatEndpoint
