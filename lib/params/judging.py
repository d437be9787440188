"""`judge` and `contamination`: what is said of answers, and whether they could be known."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lib.params.completion import ChatEndpoint
from lib.params.values import NotNegative, Positive, Section, Share


class Judge(Section):
    model: ChatEndpoint
    with_reference: bool
    control: Positive
    min_accuracy: Share
    questions: NotNegative
    samples: NotNegative


class Contamination(Section):
    ngram: Annotated[int, Field(ge=2, le=255)]
