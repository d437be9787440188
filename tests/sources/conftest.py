from __future__ import annotations

from collections.abc import Iterator

import pytest

from lib.sources import hub_client
from tests.sources.hub_server import HubServer
from tests.sources.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01, 0.01))
    for name in ("HF_TOKEN", "SMELT_HUB", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
