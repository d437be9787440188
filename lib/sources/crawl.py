"""Fetch the pages of a web source into its input folder: `python -m lib.sources.crawl NAME` asks for all of them again.

The crawl is made once, by the first run of `collect`, and kept as `crawl.warc.gz`, which DVC tracks as an input of the
source. While it is under way, every answer goes to a journal outside that folder, so that a killed crawl continues
where it was; at the end, the records of the journal and of the crawl before are copied into the new file, in order of
their URLs.

A refresh sends what the server gave to recognise the page by (ETag, Last-Modified). Where nothing changed, the old file
stays as it is, to the byte, and DVC reruns nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import functools
import json
import shutil
import signal
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm
from yarl import URL

from lib.params import load as parameters
from lib.params.sources import WebSource
from lib.pipeline.errors import SmeltError, explain
from lib.pipeline.run import exclusive
from lib.sources import links, pages, robots, warc
from lib.sources.fetch import TRANSIENT, TRANSIENT_STATUS, Client, Failed
from lib.sources.warc import Answer, Entry, Journal

FILE = "crawl.warc.gz"
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


def identity(source: WebSource) -> str:
    """What makes a crawl another one. Other knobs bear on pages that are still to be fetched."""
    asked = {"urls": sorted(source.urls), "sitemaps": sorted(source.sitemaps)}
    return json.dumps({**asked, "follow": source.follow, "max_pages": source.max_pages}, sort_keys=True)


def is_complete(folder: Path, source: WebSource) -> bool:
    """Whether the folder has a whole crawl of these URLs and sitemaps."""
    if not source.urls and not source.sitemaps:
        return True  # the user's own WARC files are all there is
    return warc.info(folder / FILE).get("smelt-crawl") == identity(source)


def _is_transient(entry: Entry) -> bool:
    return entry.reason in TRANSIENT or entry.reason == "robots_unreachable" or entry.status in TRANSIENT_STATUS


class _Crawl:
    """One crawl. `stored`: the records of the one before, asked for again when `refresh`, else taken as they are."""

    def __init__(self, source: WebSource, journal: Journal, stored: dict[str, Entry], refresh: bool, bar: tqdm) -> None:
        self._source, self._journal, self._stored, self._refresh, self._bar = source, journal, stored, refresh, bar
        self._hosts: dict[str, _Host] = {}
        self._slots = asyncio.Semaphore(_HOSTS)
        self.seen: dict[str, _Target] = {}
        self._asked = 0
        self.full = False

    async def run(self) -> None:
        named = {URL(url).raw_host or "" for url in (*self._source.urls, *self._source.sitemaps)}
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
        known = self._journal.found.get(url)
        if known is None and not self._refresh and url in self._stored and not _is_transient(self._stored[url]):
            known = self._stored[url]
        if known is not None:
            self._end(url, known)
        elif target.redirects > MAX_REDIRECTS:
            self._end(url, self._journal.failure(url, "too_many_redirects"))
        else:
            origin = links.origin(url)
            host = self._hosts.setdefault(origin, _Host())
            host.queue.append(url)
            if not host.working:
                host.working = True
                self._tasks.create_task(self._work(origin, host))

    def _end(self, url: str, entry: Entry) -> None:
        """Count a URL that is done with, and add what it leads to."""
        self._bar.update()
        target = self.seen[url]
        page = self._stored.get(url, entry) if entry.kind == "revisit" else entry
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
            self._end(url, await self._visit(origin, host, url))
        host.working = False

    async def _visit(self, origin: str, host: _Host, url: str) -> Entry:
        """The record of what a URL came to."""
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


# ----------------------------------------------------------------------------------------------------------------------
# The whole of it


def _choose(seen: Iterable[str], found: dict[str, Entry], stored: dict[str, Entry]) -> list[Entry]:
    """The record to keep of each URL: the new one, or the stored one where the page is as it was or did not answer."""
    chosen = []
    for url in sorted(seen):
        entry, old = found.get(url), stored.get(url)
        as_it_was = entry is None or entry.kind == "revisit"
        if old is not None and (as_it_was or (old.status == 200 and entry is not None and _is_transient(entry))):
            entry = old
        if entry is None:
            raise RuntimeError(f"{url} has no record")
        chosen.append(entry)
    return chosen


def _outcomes(chosen: Iterable[Entry]) -> dict[str, tuple]:
    """What the records make of each URL; sitemaps lead to pages and are none."""
    return {entry.url: entry.outcome for entry in chosen if entry.kind != "metadata" or entry.reason}


def crawl(folder: Path, scratch: Path, source: WebSource, refresh: bool, log: Callable[[str], None]) -> None:
    """Bring the crawl in `folder` up to what `source` lists; continue one that was interrupted.

    `scratch`: a folder for the journal, removed at the end. `refresh`: ask for the stored pages again.

    Raises:
        SmeltError: another process is at it, or the stored crawl cannot be read.
    """
    with exclusive(scratch.with_name(f"{scratch.name}.lock")):
        kept = folder / FILE
        try:
            stored = {entry.url: entry for entry in warc.entries(kept)} if kept.exists() else {}
        except warc.Broken as error:
            raise SmeltError(f"{kept} is damaged ({error}); remove it, and its pages are fetched anew") from None
        journal = Journal(scratch / "journal.warc.gz")
        if journal.found:
            log(f"continuing the crawl that was interrupted: {len(journal.found):,} URLs are done")
        watched = sys.stderr.isatty()
        interval = 0.2 if watched else 20
        try:
            with tqdm(unit="page", desc=folder.name, mininterval=interval, maxinterval=interval, leave=watched,
                      delay=0 if watched else interval, dynamic_ncols=watched, initial=0) as bar:  # fmt: skip
                run = _Crawl(source, journal, stored, refresh, bar)
                try:
                    asyncio.run(run.run())
                except BaseExceptionGroup as group:  # of tasks: the first error is the one that stopped the others
                    raise group.exceptions[0] from None
        finally:
            journal.close()

        if run.full:
            log(f"max_pages ({source.max_pages:,}) is reached; links and sitemaps have more")
        chosen = _choose(run.seen, journal.found, stored)
        log(_summary(chosen, journal.found, stored))
        info = {"software": "Smelt", "format": "WARC File Format 1.0", "smelt-crawl": identity(source)}
        old = warc.info(kept).get("smelt-crawl")
        if old != identity(source) or _outcomes(chosen) != _outcomes(stored.values()):
            warc.write(kept, info, chosen)
        else:
            log("no page changed")
        shutil.rmtree(scratch)


def _summary(chosen: list[Entry], found: dict[str, Entry], stored: dict[str, Entry]) -> str:
    kept = [entry for entry in chosen if entry.kind == "response" and entry.status == 200]
    changed = sum(entry.url in stored and entry.outcome != stored[entry.url].outcome for entry in kept)
    new = sum(entry.url not in stored for entry in kept)
    size = sum(entry.length for entry in kept) / 1e6
    failures = Counter(_failure(entry) for entry in found.values() if _failure(entry))
    told = f"; without a page: {dict(sorted(failures.items()))}" if failures else ""
    return f"{len(kept):,} pages ({size:.1f} MB), {new:,} of them new, {changed:,} changed{told}"


def _failure(entry: Entry) -> str | None:
    if entry.status is None or entry.status in range(200, 400):
        return entry.reason
    return f"http_{entry.status}"


def main() -> None:
    """Ask for the pages of a source again, and keep those that changed."""
    parser = argparse.ArgumentParser(prog="make crawl", description=main.__doc__)
    parser.add_argument("name", help="a source of kind web in params.yaml")
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sources = parameters.load(Path("params.yaml")).sources
        web = {key: source for key, source in sources.items() if source.kind == "web"}
        if name not in web:
            raise SmeltError(f"params.yaml has no web source {name!r}; there are: {', '.join(web) or 'none'}")
        folder = Path(web[name].input)
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(".scratch") / f"crawl@{name}"
        crawl(folder, scratch, web[name], refresh=True, log=lambda text: tqdm.write(f"crawl: {text}", file=sys.stderr))
    except (SmeltError, parameters.ParamsError) as error:
        sys.exit(f"crawl: error: {error}")
    except OSError as error:
        sys.exit(f"crawl: error: {explain(error)}")
    except KeyboardInterrupt:
        sys.exit("crawl: stopped; run the same command again to go on where it was")


if __name__ == "__main__":
    main()
