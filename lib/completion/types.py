"""What is asked of a chat model and what comes back, wherever the model runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol


class Choice(NamedTuple):
    """The answer is the JSON object {name: one of the options}. Each is a single token of text, or a digit."""

    name: str
    options: Sequence[str]

    @property
    def beginning(self) -> str:
        """What stands before the option."""
        return json.dumps({self.name: 0 if self._digits else ""})[:-2]  # without what follows: 0} or "}

    @property
    def schema(self) -> dict[str, Any]:
        values = [int(option) for option in self.options] if self._digits else list(self.options)
        member = {"type": "integer" if self._digits else "string", "enum": values}
        return {
            "type": "object", "properties": {self.name: member}, "required": [self.name], "additionalProperties": False
        }  # fmt: skip

    @property
    def _digits(self) -> bool:
        return all(option.isdecimal() for option in self.options)


class Request(NamedTuple):
    """One conversation to go on with. All of it decides the answer, and names it in the cache."""

    messages: Sequence[Mapping[str, str]]  # role (system, user, assistant) and content
    max_tokens: int  # of the answer
    temperature: float  # 0 always takes the likeliest token
    seed: int
    schema: Mapping[str, Any] | None = None  # JSON schema that the answer must be an instance of
    choice: Choice | None = None  # or: what it must choose from

    @property
    def form(self) -> Mapping[str, Any] | None:
        """The JSON schema of the answer."""
        return self.choice.schema if self.choice is not None else self.schema


class Completion(NamedTuple):
    """An answer; with a schema, JSON text that the schema allows."""

    text: str
    finish: str  # stop, or length: cut off at `max_tokens`
    tokens_in: int
    tokens_out: int
    log_probabilities: Mapping[str, float] | None = None  # of the options of a choice, where the model tells them


class Rejected(NamedTuple):
    """There is no usable answer, for a reason that lies with this one request.

    Reasons: timed_out, bad_request, rubbish (what came is no answer of the API), cut_off (at `max_tokens`, so that the
    JSON is incomplete), not_in_form (not what schema or choice allow), too_long (prompt and answer exceed the
    context).
    """

    reason: str
    detail: str  # what the model or the server said


class Backend(Protocol):
    """Where a model runs."""

    identity: str  # names the model, by content where it can be known
    window: int  # how many requests may be begun and not awaited

    def key(self, request: Request) -> Any:
        """All that decides the answer, as JSON can write it: the same key, the same answer."""

    def most_tokens(self, request: Request) -> int:
        """An upper bound of the prompt's tokens."""

    def start(self, request: Request, keep: Callable[[Completion], None]) -> Future[Completion | Rejected]:
        """Begin. An answer is given to `keep` as soon as it is there, and is the future's result then.

        Raises:
            SmeltError: from here or from the future: the model can answer nobody.
        """

    def close(self) -> None: ...
