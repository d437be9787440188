"""`judge` and `contamination`: what is said of answers, and whether they could be known."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from lib.params.completion import Budget, LocalModel, RemoteModel, inside
from lib.params.values import NotNegative, Positive, Section, Share

_NO_LIMIT = Budget(requests=None, tokens=None, money=None, price_in=0, price_out=0)


class Judge(Section):
    path: Annotated[str, AfterValidator(inside)]
    context: Annotated[int, Field(ge=512)]
    endpoint: RemoteModel | None
    with_reference: bool
    control: Positive
    min_accuracy: Share
    questions: NotNegative
    samples: NotNegative

    @property
    def model(self) -> LocalModel | RemoteModel:
        """Who judges."""
        if self.endpoint is not None:
            return self.endpoint
        return LocalModel(kind="gguf", path=self.path, context=self.context, attempts=1, budget=_NO_LIMIT)


class Contamination(Section):
    ngram: Annotated[int, Field(ge=2, le=255)]
