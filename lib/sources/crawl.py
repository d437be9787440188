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
import json
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from lib.params import load as parameters
from lib.params.sources import WebSource
from lib.pipeline.errors import SmeltError, explain
from lib.pipeline.run import exclusive
from lib.sources import warc
from lib.sources.crawler import Crawler, settle
from lib.sources.warc import Entry, Journal

FILE = "crawl.warc.gz"


def identity(source: WebSource) -> str:
    """What makes a crawl another one. Other knobs bear on pages that are still to be fetched."""
    asked = {"urls": sorted(source.urls), "sitemaps": sorted(source.sitemaps)}
    return json.dumps({**asked, "follow": source.follow, "max_pages": source.max_pages}, sort_keys=True)


def is_complete(folder: Path, source: WebSource) -> bool:
    """Whether the folder has a whole crawl of these URLs and sitemaps."""
    if not source.urls and not source.sitemaps:
        return True  # the user's own WARC files are all there is
    return warc.info(folder / FILE).get("smelt-crawl") == identity(source)


def _choose(seen: Iterable[str], found: dict[str, Entry], stored: dict[str, Entry]) -> list[Entry]:
    """The record to keep of each URL, in order of URLs; what was not asked for is as it was stored."""
    return [settle(found[url], stored.get(url)) if url in found else stored[url] for url in sorted(seen)]


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
        for url in [url for url, entry in journal.found.items() if entry.kind == "revisit" and url not in stored]:
            del journal.found[url]  # as it was, but what it was is gone
        if journal.found:
            log(f"continuing the crawl that was interrupted: {len(journal.found):,} URLs are done")
        watched = sys.stderr.isatty()
        interval = 0.2 if watched else 20
        try:
            with tqdm(unit="page", desc=folder.name, mininterval=interval, maxinterval=interval, leave=watched,
                      delay=0 if watched else interval, dynamic_ncols=watched, initial=0) as bar:  # fmt: skip
                run = Crawler(source, journal, stored, refresh, bar)
                try:
                    asyncio.run(run.run())
                except KeyboardInterrupt:
                    log("stopped; run the same command again to go on from there")
                    raise SystemExit(130) from None
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


if __name__ == "__main__":
    main()
