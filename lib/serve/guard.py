"""Who may ask, how much and how often. All of it is decided before a request's body is read."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.serve.protocol import Refused

# A page of this server may run no script but its own, load nothing from elsewhere, and stand in no other page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Bucket:
    """So much a minute, and no more than that at once (token bucket).

    Args:
        per_minute: None is without limit.
        clock: seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._left, self._then = float(per_minute or 0), clock()

    def wait(self, amount: float) -> float:
        """Seconds until so much is there; 0: it is."""
        if self._most is None:
            return 0.0
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._then) * self._most / 60)
        self._then = now
        return max(0.0, (amount - self._left) * 60 / self._most)

    def spend(self, amount: float) -> None:
        """Take it, even where it is not there yet: what is owed has to come in first."""
        self._left -= amount


class Caller:
    """One key, or everybody where there are none."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._requests, self._tokens = Bucket(requests_per_minute), Bucket(tokens_per_minute)

    def enter(self) -> None:
        """Count a request.

        Raises:
            Refused: there were too many, or too many tokens.
        """
        for what, wait in (("requests", self._requests.wait(1)), ("tokens", self._tokens.wait(1))):
            if wait:
                raise Refused(
                    429, f"too many {what} in a minute: wait {math.ceil(wait)} s", "rate_limit_exceeded", retry=wait
                )
        self._requests.spend(1)

    def used(self, tokens: int) -> None:
        self._tokens.spend(tokens)


class Guard:
    """ASGI middleware: API keys before /v1, a count of every response, and headers of each.

    Args:
        keys: empty lets everybody in.
        answered: is told each request's route (of those that there are) and status.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        caller: Callable[[], Caller],
        answered: Callable[[str, int], None],
    ) -> None:
        self._app, self._answered = app, answered
        self._callers = {_digest(key): caller() for key in keys}
        self._anybody = None if keys else caller()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(getattr(scope.get("route"), "path", "other"), message["status"])
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        caller = self._caller(Headers(scope=scope))
        if caller is None and scope["path"].startswith("/v1/"):
            refused = Refused(
                401, "wrong or missing API key: send it as `Authorization: Bearer KEY`", "invalid_api_key"
            )
            await response(refused)(scope, receive, counted)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, counted)

    def _caller(self, headers: Headers) -> Caller | None:
        if self._anybody is not None:
            return self._anybody
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given, found = _digest(key.strip()), None
        for digest, caller in self._callers.items():  # all of them: the time must not tell how near a guess was
            if hmac.compare_digest(digest, given) and scheme.lower() == "bearer":
                found = caller
        return found


def response(refused: Refused) -> JSONResponse:
    headers: dict[str, Any] = {}
    if refused.retry is not None:
        headers["Retry-After"] = str(math.ceil(refused.retry))
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(refused.body, refused.status, headers)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
