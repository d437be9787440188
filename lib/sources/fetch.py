"""One request over HTTP, bounded in time, in size and in where it may go."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from lib.sources.warc import Answer

_BLOCK = 1 << 16
_RESOLVER: Any = DefaultResolver
# Outcomes that another time may differ: the crawl asks again, and a refresh keeps the page that it has.
TRANSIENT = frozenset({"timed_out", "unreachable", "host_not_found", "tls_failed", "broken_answer"})
TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})


class Failed(Exception):
    """There is no answer that could be kept; the reason is one of those that documents are rejected with."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Private(OSError):
    pass


def _is_private(address: str) -> bool:
    return not ipaddress.ip_address(address.partition("%")[0]).is_global


class _Resolver(_RESOLVER):
    """Finds no private address for a host that the user did not name.

    A page on the web may redirect or link to what only this machine can reach (a router, an intranet, the metadata of a
    cloud), and nobody meant to train on that.
    """

    def __init__(self, named: Collection[str]) -> None:
        super().__init__()
        self._named = named

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if host not in self._named and any(_is_private(address["host"]) for address in found):
            raise _Private(f"{host} is a private address")
        return found


class Client:
    """Asks for URLs one at a time each, with no cookies and no credentials.

    `named`: the hosts that the user named, which alone may have private addresses. `max_bytes` is of the body after
    decompression, `seconds` from the connection to the last byte.
    """

    def __init__(self, user_agent: str, named: Collection[str], max_bytes: int, seconds: float) -> None:
        self._named, self._max_bytes, self._seconds = named, max_bytes, seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=_Resolver(named)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=seconds),
            headers={"User-Agent": user_agent, "Accept-Encoding": "gzip, deflate"},
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def get(
        self, url: str, headers: Mapping[str, str], wanted: Callable[[Answer], bool], max_bytes: int | None = None
    ) -> Answer:
        """The server's answer to one GET; redirects are not followed. The body is read when `wanted`, else left.

        Raises:
            Failed: there is no answer, or it is too long or too slow.
        """
        target = URL(url, encoded=True)
        try:
            if target.raw_host not in self._named and _is_private(target.raw_host or ""):
                raise Failed("private_address")
        except ValueError:
            pass  # a name, which the resolver looks at
        try:
            async with self._session.get(target, headers=headers, allow_redirects=False) as response:
                told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
                answer = Answer(response.status, response.reason or "", told, b"")
                return answer._replace(body=await self._body(response, max_bytes)) if wanted(answer) else answer
        except TimeoutError:
            raise Failed("timed_out") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise Failed("private_address" if isinstance(error.os_error, _Private) else "host_not_found") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError):
            raise Failed("tls_failed") from None
        except aiohttp.ClientConnectorError:
            raise Failed("unreachable") from None
        except aiohttp.InvalidURL:
            raise Failed("bad_url") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise Failed("broken_answer") from None

    async def _body(self, response: aiohttp.ClientResponse, max_bytes: int | None) -> bytes:
        most = max_bytes or self._max_bytes
        if (response.content_length or 0) > most:  # compressed, if it is: the text would be larger still
            raise Failed("too_large")
        parts, size = [], 0
        # aiohttp inflates at most 64 KiB at a time, so that a bomb is cut off before it unfolds.
        async for part in response.content.iter_chunked(_BLOCK):
            size += len(part)
            if size > most:
                raise Failed("too_large")
            parts.append(part)
        return b"".join(parts)
