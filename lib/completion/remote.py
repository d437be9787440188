"""An endpoint that speaks the OpenAI API (chat completions), asked several things at once.

What fails in passing is tried again, ever later, with jitter, and not before a server's Retry-After. What is wrong with
one request rejects it; what is wrong with all of them (no such server, model or key; no quota) raises SmeltError.

The key comes from the environment alone. It goes into the request's header and nowhere else: not to where a server
redirects, not into messages, not into the cache. SMELT_REQUESTS is how many requests are under way at once (8).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from typing import Any

import httpx2

from lib.completion.types import Completion, Rejected, Request
from lib.params.completion import RemoteModel
from lib.pipeline.errors import SmeltError

_MAX_BYTES = 4 * 2**20  # of one answer
_TOP = 20  # likeliest tokens that are asked for; the API allows no more
_AROUND = ' "\n'
_TEMPLATE_TOKENS = 16  # that a chat template puts around a message, at most; and before the answer
_KEPT = "What was answered before is kept; the same command goes on from there"


class _Failed(Exception):
    """What went wrong with one try. `wait`: before the next one, in seconds, as the server asked."""

    def __init__(self, reason: str, detail: str, wait: float | None = None) -> None:
        self.reason, self.detail, self.wait = reason, detail, wait


class Remote:
    """Requests run on an event loop of their own, so that deadlines hold while the caller is busy."""

    def __init__(self, params: RemoteModel, log: Callable[[str], None]) -> None:
        self._params, self._log = params, log
        self._headers = {"Accept-Encoding": "identity"}
        self._key = os.environ.get(params.key, "").strip() if params.key else ""
        if params.key is not None:
            if not self._key or not self._key.isascii() or not self._key.isprintable():
                raise SmeltError(f"{params.url} wants a key: the environment variable {params.key} holds none")
            self._headers["Authorization"] = f"Bearer {self._key}"
        self.identity = f"{params.model} at {params.url}"
        at_once = int(os.environ.get("SMELT_REQUESTS") or 8)
        self.window = 4 * at_once  # more than are under way: a slow answer must not keep the others waiting
        self._slots = asyncio.Semaphore(at_once)
        self._pause_until = 0.0  # a server that asks one to wait means all
        self._answered = False
        self._client: httpx2.AsyncClient | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def key(self, request: Request) -> Any:
        return [self._params.url, self._body(request)]

    def most_tokens(self, request: Request) -> int:
        """A token has a byte at least."""
        return _TEMPLATE_TOKENS + sum(
            len(message["content"].encode()) + _TEMPLATE_TOKENS for message in request.messages
        )

    def start(self, request: Request, keep: Callable[[Completion], None]) -> Future[Completion | Rejected]:
        return asyncio.run_coroutine_threadsafe(self._complete(request, keep), self._loop)

    def close(self) -> None:
        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._client is not None:
                await self._client.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- on the loop

    async def _complete(self, request: Request, keep: Callable[[Completion], None]) -> Completion | Rejected:
        async with self._slots:
            for tried in count():
                while (pause := self._pause_until - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                try:
                    completion = await self._ask(request)
                    keep(completion)
                    return completion
                except _Failed as failed:
                    last = failed
                if tried >= self._retries(last):
                    return self._give_up(last)
                wait = self._wait(last, tried)
                self._log(f"{self.identity}: {last.detail}; trying again in {wait:.1f} s")
                await asyncio.sleep(wait)
        raise AssertionError("the loop ends by itself")

    def _retries(self, failed: _Failed) -> int:
        if failed.reason == "bad_request":
            return 0
        # One that never answered is probably not there, and waiting would not help.
        gone = failed.reason == "unreachable" and not self._answered
        return min(1, self._params.retries) if gone else self._params.retries

    def _wait(self, failed: _Failed, tried: int) -> float:
        """Seconds before the next try.

        Raises:
            SmeltError: the server asks for a longer wait than `max_wait_seconds`.
        """
        most = self._params.max_wait_seconds
        if failed.wait is None:
            return min(most, self._params.retry_seconds * 2**tried * random.uniform(0.5, 1.0))
        if failed.wait > most:
            raise SmeltError(
                f"{self.identity} asks for a wait of {failed.wait:.0f} s ({failed.detail}), longer than "
                f"max_wait_seconds in params.yaml. {_KEPT}, later"
            )
        self._pause_until = max(self._pause_until, time.monotonic() + failed.wait)
        return failed.wait * random.uniform(1.0, 1.1)  # not all at the same moment

    def _give_up(self, failed: _Failed) -> Rejected:
        if failed.reason in ("timed_out", "rubbish", "bad_request"):
            return Rejected(failed.reason, failed.detail)
        what = {
            "unreachable": f"cannot be reached: {failed.detail}. Is the server running, and the address right?",
            "rate_limited": f"refuses for the rate or the quota of this key: {failed.detail}. Wait, or ask for more;"
            f" SMELT_REQUESTS=1 asks one at a time.",
            "server_error": f"fails and fails: {failed.detail}. Look at the server's own log.",
        }[failed.reason]
        raise SmeltError(f"{self.identity} {what} {_KEPT}")

    async def _ask(self, request: Request) -> Completion:
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=None, follow_redirects=False, headers=self._headers)
        try:
            async with (
                asyncio.timeout(self._params.timeout_seconds),
                self._client.stream(
                    "POST", f"{self._params.url}/chat/completions", json=self._body(request)
                ) as response,
            ):
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise _Failed("rubbish", f"an answer of more than {_MAX_BYTES >> 20} MiB")
        except TimeoutError:
            raise _Failed("timed_out", f"no answer in {self._params.timeout_seconds:g} s") from None
        except httpx2.ConnectError as error:
            raise _Failed("unreachable", self._clean(f"{type(error).__name__}: {error}")) from None
        except httpx2.TransportError as error:
            raise _Failed("server_error", self._clean(f"{type(error).__name__}: {error}")) from None
        self._answered = True
        if response.status_code != 200:
            raise self._refusal(response, body)
        return self._read(body, request)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._params.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        schema = request.form
        if schema is not None and self._params.structured == "json_schema":
            form = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if schema is not None and self._params.structured == "json_object":
            body["response_format"] = {"type": "json_object", "schema": schema}
        if request.choice is not None:
            body |= {"logprobs": True, "top_logprobs": _TOP}
        return body

    def _read(self, body: bytes, request: Request) -> Completion:
        try:
            answer = json.loads(body)
            choice = answer["choices"][0]
            text, finish = choice["message"]["content"], choice["finish_reason"]
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _Failed(
                "rubbish", f"no chat completion: {self._clean(body[:200].decode(errors='replace'))!r}"
            ) from None
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        most = self.most_tokens(request), request.max_tokens
        counts = (
            count if isinstance(count := usage.get(name), int) and 0 <= count <= bound else bound  # in doubt, the most
            for name, bound in zip(("prompt_tokens", "completion_tokens"), most, strict=True)
        )
        known = _log_probabilities(choice, request.choice.options) if request.choice is not None else None
        return Completion(text, "length" if finish == "length" else "stop", *counts, known)

    def _refusal(self, response: httpx2.Response, body: bytes) -> Exception:
        status, said = response.status_code, self._clean(body[:300].decode(errors="replace"))
        detail = f"HTTP {status}: {said}" if said.strip() else f"HTTP {status}"
        if status == 429:
            return _Failed("rate_limited", detail, _retry_after(response.headers.get("Retry-After", "")))
        if status >= 500 or status in (408, 425):
            return _Failed("server_error", detail, _retry_after(response.headers.get("Retry-After", "")))
        if status in (401, 403):
            given = f"the key in {self._params.key}" if self._params.key else "no key (`key` is null in params.yaml)"
            return SmeltError(f"{self.identity} refuses {given}: {detail}. {_KEPT}")
        if status in (404, 405) or 300 <= status < 400:
            return SmeltError(
                f"{self.identity} has no such model or address: {detail}. Correct `model` and `url`, which ends before "
                f"/chat/completions, in params.yaml"
            )
        return _Failed("bad_request", detail)

    def _clean(self, text: str) -> str:
        """What a server said, on one line; some repeat the key."""
        return " ".join((text.replace(self._key, "[key]") if self._key else text).split())


def _log_probabilities(choice: Any, options: Sequence[str]) -> dict[str, float] | None:
    """Of the options at the first token that is one of them; None if the server does not tell them all.

    A server lists the likeliest tokens alone, with and without quotation marks or a space.
    """
    try:
        for place in choice["logprobs"]["content"]:
            if place["token"].strip(_AROUND) in options:
                known: dict[str, float] = {}
                for entry in place["top_logprobs"]:
                    option, value = entry["token"].strip(_AROUND), float(entry["logprob"])
                    if option in options:
                        before = known.get(option, -math.inf)
                        known[option] = max(before, value) + math.log1p(math.exp(-abs(before - value)))
                return known if len(known) == len(options) else None
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return None


def _retry_after(value: str) -> float | None:
    """Seconds, of a header that gives seconds or a date (RFC 9110, 10.2.3)."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
