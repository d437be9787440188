"""One crawl: which URLs there are to ask for, and asking each host for them at its own pace."""

from __future__ import annotations

import asyncio
import email.utils
import functools
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm
from yarl import URL

from lib.params.sources import WebSource
from lib.sources import links, pages, robots, warc
from lib.sources.fetch import TRANSIENT, TRANSIENT_STATUS, Client, Failed
from lib.sources.warc import Answer, Entry, Journal

MAX_REDIRECTS = 10
_HOSTS = 16  # asked at the same time; each gets one request at a time
_SITEMAP_DEPTH = 3  # the protocol knows one index above the sitemaps
_SITEMAP_BYTES = 50 * 2**20  # the most that the sitemap protocol allows
_ACCEPT = "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.1"


class _Target(NamedTuple):
    """What a URL is to the crawl."""

    sitemap: bool = False
    depth: int = 0  # links from what is listed
    redirects: int = 0


class _Host:
    """The queue of one host. `ready` is when it may be asked again."""

    def __init__(self) -> None:
        self.queue: deque[str] = deque()
        self.working = False
        self.robots: robots.Robots | None = None
        self.ready = 0.0


def is_transient(entry: Entry) -> bool:
    """Whether a failure may pass."""
    return entry.reason in TRANSIENT or entry.reason == "robots_unreachable" or entry.status in TRANSIENT_STATUS


def settle(entry: Entry, stored: Entry | None) -> Entry:
    """The record that counts of a URL: the stored one where it is as it was, or where there is no answer for now."""
    if stored is None:
        return entry
    worth_keeping = stored.status == 200 or bool(stored.sitemaps or stored.outlinks)
    return stored if entry.kind == "revisit" or (worth_keeping and is_transient(entry)) else entry


class Crawler:
    """One crawl. `stored`: the records of the one before, asked for again when `refresh`, else taken as they are."""

    def __init__(self, source: WebSource, journal: Journal, stored: dict[str, Entry], refresh: bool, bar: tqdm) -> None:
        self._source, self._journal, self._stored, self._refresh, self._bar = source, journal, stored, refresh, bar
        self._hosts: dict[str, _Host] = {}
        self._slots = asyncio.Semaphore(_HOSTS)
        self.seen: dict[str, _Target] = {}
        self._asked = 0
        self.full = False

    async def run(self) -> None:
        listed = filter(None, map(links.normalise, (*self._source.urls, *self._source.sitemaps)))
        named = {URL(url).raw_host or "" for url in listed}
        max_bytes = int(self._source.max_page_mib * 2**20)
        client = Client(self._source.user_agent, named, max_bytes, self._source.timeout_seconds)
        async with client as self._client, asyncio.TaskGroup() as self._tasks:
            for url in self._source.urls:
                self._list(url, _Target())
            for url in self._source.sitemaps:
                self._list(url, _Target(sitemap=True))

    # -- what is to be asked for

    def _list(self, url: str, target: _Target) -> None:
        """Add a URL of the user's, which ends as a reject where links would be passed over."""
        if links.normalise(url) is not None:
            self._add(links.normalise(url), target)
        elif url not in self.seen:
            self.seen[url] = target
            self._end(url, self._journal.failure(url, "bad_url"))

    def _add(self, url: str | None, target: _Target) -> None:
        if url is None or url in self.seen:
            return
        if not target.redirects:  # a redirect is part of the page that it leads to
            if self._asked >= self._source.max_pages:
                self.full = True
                return
            self._asked += 1
        self.seen[url] = target
        self._bar.total = len(self.seen)
        origin = links.origin(url)
        host = self._hosts.setdefault(origin, _Host())
        host.queue.append(url)
        if not host.working:
            host.working = True
            self._tasks.create_task(self._work(origin, host))

    def _known(self, url: str) -> Entry | None:
        """The record of a URL that need not be asked for."""
        stored = None if self._refresh else self._stored.get(url)
        return self._journal.found.get(url) or (None if stored is None or is_transient(stored) else stored)

    def _end(self, url: str, entry: Entry) -> None:
        """Count a URL that is done with, and add what it leads to."""
        self._bar.update()
        target = self.seen[url]
        page = settle(entry, self._stored.get(url))
        if page.location is not None and page.status in range(300, 400):
            self._add(links.normalise(page.location, url), target._replace(redirects=target.redirects + 1))
        for found in page.outlinks:
            self._add(found, _Target())
        if target.depth < _SITEMAP_DEPTH:
            for found in page.sitemaps:
                self._add(found, _Target(sitemap=True, depth=target.depth + 1))
        if target.depth < self._source.follow and not target.sitemap and page.status == 200:
            for found in links.in_page(warc.body(page), url):
                self._add(found, _Target(depth=target.depth + 1))

    # -- asking for it

    async def _work(self, origin: str, host: _Host) -> None:
        while host.queue:
            url = host.queue.popleft()
            # What is known waits for its turn too: a crawl that is resumed finds links in the order of one that is not.
            self._end(url, self._known(url) or await self._visit(origin, host, url))
        host.working = False

    async def _visit(self, origin: str, host: _Host, url: str) -> Entry:
        """The record of what a URL came to."""
        if self.seen[url].redirects > MAX_REDIRECTS:
            return self._journal.failure(url, "too_many_redirects")
        get = functools.partial(self._get, host)
        if host.robots is None:
            host.robots = await robots.ask(get, origin, self._source.user_agent)
        reason = host.robots.refuses(url)
        if reason is None and host.robots.delay > self._source.max_delay_seconds:
            reason = "crawl_delay_too_long"
        if reason is not None:
            return self._journal.failure(url, reason)
        stored = self._stored.get(url)
        if stored is not None and stored.status != 200:
            stored = None
        try:
            if self.seen[url].sitemap:
                answer = await get(url, {}, lambda answer: answer.status == 200, _SITEMAP_BYTES)
            else:
                answer = await get(url, _conditions(stored), lambda a: a.status == 200 and pages.kind(a) is not None)
        except Failed as failure:
            return self._journal.failure(url, failure.reason)
        if answer.status == 304:
            return self._journal.unchanged(url) if stored else self._journal.failure(url, "http_304")
        if self.seen[url].sitemap and answer.status == 200:
            return self._sitemap(url, answer)
        return self._journal.answer(url, answer)

    def _sitemap(self, url: str, answer: Answer) -> Entry:
        content = answer.body
        if content.startswith(b"\x1f\x8b"):  # sitemap.xml.gz, a file that is compressed by itself
            try:
                content = zlib.decompressobj(wbits=31).decompress(content, _SITEMAP_BYTES + 1)
            except zlib.error:
                return self._journal.failure(url, "not_a_sitemap")
        if len(content) > _SITEMAP_BYTES:
            return self._journal.failure(url, "too_large")
        listed = links.in_sitemap(content, url, self._source.max_pages)
        if listed is None:
            return self._journal.failure(url, "not_a_sitemap")
        return self._journal.sitemap(url, listed.sitemaps, listed.pages)

    async def _get(
        self,
        host: _Host,
        url: str,
        headers: dict[str, str],
        wanted: Callable[[Answer], bool],
        max_bytes: int | None = None,
    ) -> Answer:
        """Ask when the host may be asked, and again after what may pass.

        Raises:
            Failed: there is no answer.
        """
        source, pause = self._source, self._source.retry_seconds
        delay = max(source.delay_seconds, host.robots.delay if host.robots else 0.0)
        for left in range(source.retries, -1, -1):
            await asyncio.sleep(max(0.0, host.ready - time.monotonic()))
            result: Answer | Failed
            try:
                async with self._slots:
                    result = await self._client.get(url, headers, wanted, max_bytes)
            except Failed as failure:
                result = failure
            host.ready = time.monotonic() + delay
            again = result.reason in TRANSIENT if isinstance(result, Failed) else result.status in TRANSIENT_STATUS
            told = 0.0 if isinstance(result, Failed) else _retry_after(result)
            if not again or not left or told > source.max_delay_seconds:
                break
            host.ready = max(host.ready, time.monotonic() + max(told, min(pause, source.max_delay_seconds)))
            pause *= 2
        if isinstance(result, Failed):
            raise result
        return result


def _conditions(stored: Entry | None) -> dict[str, str]:
    """Headers that ask for a page only if it is not the stored one."""
    headers = {"Accept": _ACCEPT}
    if stored is not None and stored.etag:
        headers["If-None-Match"] = stored.etag
    if stored is not None and stored.modified:
        headers["If-Modified-Since"] = stored.modified
    return headers


def _retry_after(answer: Answer) -> float:
    """Seconds to wait that the server names, 0 when it names none: a number, or a date."""
    told = answer.header("retry-after") or ""
    if told.strip().isdecimal():
        return float(told)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
