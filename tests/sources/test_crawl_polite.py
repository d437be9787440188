"""What a crawl does not ask for, and how long it waits: robots.txt and the distance of requests."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.sources.crawling import collect, redirect, web
from tests.sources.site import Site, page


def robots(text: str) -> Any:
    return lambda handler: handler.give(text, type="text/plain")


def test_robots_txt_is_kept_to(tmp_path: Path, site: Site) -> None:
    site.routes = {
        "/robots.txt": robots(
            "User-agent: *\nDisallow: /\n\nUser-agent: Smelt\nDisallow: /private\nDisallow: /*.cgi$\n"
        ),
        "/a": page("Aries"),
        "/private/x": page("Private"),
        "/go": redirect("/private/y"),
        "/private/y": page("Private"),
        "/run.cgi": page("Run"),
    }
    texts, reasons = collect(tmp_path, web(site, "/a", "/private/x", "/go", "/run.cgi"))
    assert set(texts) == {"/a"}
    assert reasons == {"/private/x": "robots", "/go": "redirected", "/private/y": "robots", "/run.cgi": "robots"}
    assert set(site.paths()) == {"/a", "/go"}


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (lambda handler: handler.give("", status=404), True),
        (lambda handler: handler.give("", status=403), True),
        (lambda handler: handler.give("", status=503), False),
        (lambda handler: handler.give("", status=302, Location="/rules"), False),
        (lambda handler: handler.give("", status=302, Location="/robots.txt"), True),
    ],
)
def test_a_robots_txt_that_cannot_be_had(tmp_path: Path, site: Site, answer: Any, allowed: bool) -> None:
    """RFC 9309, 2.3.1: no such file allows everything, a server in trouble nothing; redirects are followed."""
    site.routes = {"/robots.txt": answer, "/rules": robots("User-agent: *\nDisallow: /"), "/a": page("Aries")}
    texts, reasons = collect(tmp_path, web(site, "/a"))
    assert bool(texts) == allowed
    assert bool(reasons) != allowed


def test_requests_to_a_host_keep_their_distance_and_hosts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Site() as one, Site() as two:
        for site in (one, two):
            site.routes = {f"/{number}": page(str(number)) for number in range(4)}
        two.routes["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.3\n")
        urls = [f"{site.url}/{number}" for site in (one, two) for number in range(4)]
        collect(tmp_path, web(one, urls=urls, delay_seconds=0.1))
    for site, delay in ((one, 0.1), (two, 0.3)):
        times = [at for path, _, at in site.asked if path != "/robots.txt"]
        assert min(after - before for before, after in itertools.pairwise(times)) >= delay * 0.95
    assert two.asked[0][2] < one.asked[-1][2]


def test_a_host_that_wants_to_be_left_alone(tmp_path: Path, site: Site) -> None:
    site.routes = {"/robots.txt": robots("User-agent: *\nCrawl-delay: 3600\n"), "/a": page("Aries")}
    assert collect(tmp_path, web(site, "/a")) == ({}, {"/a": "crawl_delay_too_long"})
