"""What a host allows: its robots.txt (RFC 9309)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from protego import Protego

from lib.sources import links
from lib.sources.fetch import Failed
from lib.sources.warc import Answer

_REDIRECTS = 5  # RFC 9309, 2.3.1.2
_MAX_BYTES = 512 * 1024  # 2.5: at least 500 KiB have to be read


class Robots(NamedTuple):
    """The rules of one host for one robot, or the reason why its robots.txt cannot be had."""

    agent: str
    rules: Protego | None
    reason: str | None = None

    def refuses(self, url: str) -> str | None:
        """Why the URL is not to be asked for, or None."""
        if self.rules is None:
            return self.reason  # 2.3.1.4: then nothing may be fetched
        return None if self.rules.can_fetch(url, self.agent) else "robots"

    @property
    def delay(self) -> float:
        """Seconds between two requests that the host asks for."""
        return float(self.rules.crawl_delay(self.agent) or 0) if self.rules else 0.0


async def ask(get: Callable[..., Awaitable[Answer]], origin: str, user_agent: str) -> Robots:
    """The robots.txt of `origin`; `get` is `Client.get`, or a more patient one."""
    agent = user_agent.partition("/")[0].split()[0]
    everything = Robots(agent, Protego.parse(""))
    url = f"{origin}/robots.txt"
    for _ in range(_REDIRECTS + 1):
        try:
            answer = await get(url, {}, lambda answer: answer.status == 200, _MAX_BYTES)
        except Failed as failure:
            # One that is too long is no robots.txt: a server that answers everything with its front page has none.
            return everything if failure.reason == "too_large" else Robots(agent, None, failure.reason)
        if answer.status == 200:
            return Robots(agent, Protego.parse(answer.body.decode("utf-8", errors="replace")))
        if answer.status == 429 or answer.status >= 500:
            return Robots(agent, None, "robots_unreachable")
        target = links.normalise(answer.header("location") or "", url) if answer.status in range(300, 400) else None
        if target is None:
            break
        url = target
    return everything  # 2.3.1.3: there is none
