"""Answers of a chat model, wherever it runs: cached, within a budget, in the form that was asked for.

    with connect(params, root, log) as endpoint:
        answer = endpoint.complete(messages, max_tokens=64, temperature=0, seed=1, schema=None)
        for answer in endpoint.complete_all(requests): ...      # in their order, several at once where the model can

A request that gives no usable answer gives `Rejected`, with its reason; a model that can answer nobody (no such file,
wrong key, server down) raises SmeltError. Either way every answer that came is in the cache, so that the same run again
goes on from there.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from lib.completion.budget import Cost, exceeded
from lib.completion.cache import Cache, folder
from lib.completion.local import Local
from lib.completion.remote import Remote
from lib.completion.types import Backend, Completion, Rejected, Request
from lib.params.completion import Budget, ChatEndpoint
from lib.pipeline.errors import SmeltError

_FAILURES = 5  # in a row, of reasons that may be the server's: it is given up
_SERVER = ("timed_out", "bad_request", "rubbish")


class BudgetSpent(SmeltError):
    """The next request could exceed the budget."""


class _Begun(NamedTuple):
    request: Request
    answer: Future[Completion | Rejected] | Completion
    worst: Cost


def connect(params: ChatEndpoint, root: Path, log: Callable[[str], None]) -> Endpoint:
    """The endpoint that `params` describe. `root`: of the repository, which a GGUF's path is relative to.

    Raises:
        SmeltError: there is no such file, or it is no chat model; the key is missing.
    """
    local = params.kind == "gguf"
    backend = Local(root / params.gguf.path, params.gguf.context) if local else Remote(params.openai, log)
    return Endpoint(backend, Cache(folder(root)), params.attempts, params.budget)


class Endpoint:
    """Asks a model.

    Attributes:
        identity: names the model: for provenance.
        cost: of all answers so far, those from the cache included, as if they had been made now.
        asked: how many requests went to the model, and not to the cache.
        stopped: the limit of the budget (requests, tokens, money) that ended `complete_all`, or None.
    """

    def __init__(self, backend: Backend, cache: Cache, attempts: int, budget: Budget) -> None:
        self._backend, self._cache, self._attempts, self._budget = backend, cache, attempts, budget
        self.identity = backend.identity
        self.cost, self.asked, self._failed = Cost(), 0, 0
        self.stopped: str | None = None

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self._backend.close()

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion | Rejected:
        """One answer.

        Raises:
            BudgetSpent: it could exceed the budget.
            SmeltError: the model cannot answer anybody; the message says what to do.
        """
        answer = next(self.complete_all([Request(messages, max_tokens, temperature, seed, schema)]), None)
        if answer is None:
            raise BudgetSpent(f"the budget is spent: {self.stopped}")
        return answer

    def complete_all(self, requests: Iterable[Request]) -> Iterator[Completion | Rejected]:
        """Answers in the order of `requests`, which are taken as they are needed.

        Ends before the first one that could exceed the budget; `stopped` then says why.

        Raises:
            SmeltError: the model cannot answer anybody.
        """
        begun: deque[_Begun] = deque()
        waiting = iter(requests)
        upcoming = next(waiting, None)
        self.stopped = None
        try:
            while upcoming is not None or begun:
                while upcoming is not None and len(begun) < self._backend.window:
                    worst = self._worst(upcoming)
                    reserved = self.cost.plus(worst)
                    for one in begun:
                        reserved = reserved.plus(one.worst)
                    if limit := exceeded(reserved, self._budget):
                        if not begun:
                            self.stopped = limit
                            return
                        break
                    begun.append(_Begun(upcoming, self._begin(upcoming), worst))
                    upcoming = next(waiting, None)
                yield self._finish(begun.popleft())
        finally:
            for one in begun:
                if isinstance(one.answer, Future):
                    one.answer.cancel()

    def _begin(self, request: Request) -> Future[Completion | Rejected] | Completion:
        key = self._backend.key(request)
        if kept := self._cache.get(key):
            return kept
        self.asked += 1
        return self._backend.start(request, lambda completion: self._cache.put(key, completion))

    def _worst(self, request: Request) -> Cost:
        """The most that one try can cost; its tokens are counted only where they are limited."""
        if self._budget.tokens is None and self._budget.money is None:
            return Cost(1)
        return Cost(1, self._backend.most_tokens(request), request.max_tokens)

    def _finish(self, begun: _Begun) -> Completion | Rejected:
        """The answer, asked for again with other seeds while it is not in form and the budget allows."""
        request, answer = begun.request, self._settle(begun)
        # The likeliest tokens are the same with every seed.
        for _ in range(self._attempts - 1 if request.temperature > 0 else 0):
            again = request._replace(seed=request.seed + 1)
            worst = begun.worst
            in_form = not isinstance(answer, Rejected) or answer.reason not in ("not_in_form", "cut_off")
            if in_form or exceeded(self.cost.plus(worst), self._budget):
                break
            request, answer = again, self._settle(_Begun(again, self._begin(again), worst))
        return answer

    def _settle(self, begun: _Begun) -> Completion | Rejected:
        answer = begun.answer.result() if isinstance(begun.answer, Future) else begun.answer
        if isinstance(answer, Completion):
            self.cost = self.cost.plus(Cost(1, answer.tokens_in, answer.tokens_out))
            self._failed = 0
            return _in_form(answer, begun.request)
        if answer.reason != "too_long":
            self.cost = self.cost.plus(Cost(1))
        self._failed += answer.reason in _SERVER
        if self._failed >= _FAILURES:
            raise SmeltError(
                f"{self.identity} gave no usable answer {_FAILURES} times in a row, the last time {answer.reason}: "
                f"{answer.detail}. What it answered before is kept; the same command goes on from there"
            )
        return answer


def _in_form(completion: Completion, request: Request) -> Completion | Rejected:
    """The answer if it has the form that was asked for; of a choice, the option alone."""
    schema, text = request.form, completion.text
    if schema is None:
        return completion
    if request.choice is not None and text.strip() in request.choice.options:
        return completion._replace(text=text.strip())
    try:
        value = json.loads(text)
        jsonschema.validate(value, schema)
    except (ValueError, jsonschema.ValidationError) as error:
        reason = "cut_off" if completion.finish == "length" else "not_in_form"
        what = error.message if isinstance(error, jsonschema.ValidationError) else str(error)
        return Rejected(reason, f"{what}: {text[:200]}")
    return completion if request.choice is None else completion._replace(text=str(value[request.choice.name]))
